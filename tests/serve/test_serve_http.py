"""The server over HTTP: what it answers, also to a client that nobody here wrote."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitinfer
from bitinfer.documents import serving as documents
from bitinfer.session import Session
from helpers import COLOURS, binary_model, colour_model, encode, noise, save, solid

Serving = Callable[..., Any]


def tensor(x: np.ndarray, name: str = "input") -> dict[str, Any]:
    kind = {"float32": "FP32", "uint8": "UINT8"}[x.dtype.name]
    data = x.ravel().tolist()
    return {"inputs": [{"name": name, "shape": list(x.shape), "datatype": kind, "data": data}]}


# --- what there is -------------------------------------------------------------------------------


def test_health_and_metadata(serving: Serving, colours: Session) -> None:
    client = serving({"colours": colours})
    assert client.get("/v2/health/live")[:2] == (200, {"live": True})
    assert client.get("/v2/health/ready")[:2] == (200, {"ready": True})
    status, server, _ = client.get("/v2")
    assert status == 200
    assert server["name"] == "bitinfer"
    assert server["version"] == bitinfer.__version__
    assert "binary_tensor_data" in server["extensions"]
    assert server["models"] == ["colours"]
    for path in ("/v2/models/colours", "/v2/models/colours/versions/1"):
        status, model, _ = client.get(path)
        assert status == 200
        assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 8, 8, 3]}]
        assert model["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1, 3]}]
        assert model["versions"] == ["1"]
        assert model["parameters"]["backend"] == colours.backend
        assert model["parameters"]["labels"] == list(COLOURS)
        assert client.get(f"{path}/ready")[:2] == (200, {"name": "colours", "ready": True})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/other", 404),
        ("/v2/models/other/ready", 404),
        ("/v2/models/colours/versions/2", 404),
        ("/v2/models/colours/versions/2/ready", 404),
        ("/v2/models/..%2f..%2fetc%2fpasswd", 404),
        ("/v2/models/colours/infer", 405),
        ("/nothing", 404),
        ("/v2/", 404),
        ("//v2", 404),
    ],
)
def test_what_is_not_there(serving: Serving, colours: Session, path: str, status: int) -> None:
    got, answer, headers = serving({"colours": colours}).get(path)
    assert got == status
    assert list(answer) == ["error"]
    if status == 405:
        assert headers["allow"] == "POST"


def test_several_models_and_versions(tmp_path: Path, serving: Serving) -> None:
    from bitinfer.serve import Service, load_models

    old = save(colour_model(labels=("r", "g", "b")), tmp_path / "old.bin")
    new = save(colour_model(), tmp_path / "new.bin")
    other = save(binary_model(), tmp_path / "other.bin")
    specs = (f"c:2={old}", f"c:10={new}", str(other))
    models = load_models(specs, "reference")
    assert models.names == ("c", "other")
    assert models.versions("c") == ("2", "10")
    assert models.find("c").version == "10"
    assert models.find("c", "2").session.model.labels == ("r", "g", "b")
    assert Service(models).metrics.text().count('model="c",version="10"') > 1


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no model"),
        (["{}", "{}"], "given twice"),
        (["a b={}"], "no name"),
        (["={}"], "no name"),
        (["a:x={}"], "no version"),
        (["a:0={}"], "no version"),
        (["a:01={}"], "no version"),
    ],
)
def test_specs_that_are_none(colours_file: Path, specs: list[str], message: str) -> None:
    from bitinfer.serve import load_models

    with pytest.raises(bitinfer.UsageError, match=message):
        load_models([spec.format(colours_file) for spec in specs], "reference")


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    from bitinfer.serve import load_models

    folder = tmp_path / "a=b"
    folder.mkdir()
    models = load_models([str(save(colour_model(), folder / "m.bin"))], "reference")
    assert models.names == ("m",)


def test_a_model_that_fails_its_self_test_is_not_served(
    colours: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitinfer.serve import models

    run = Session.run
    monkeypatch.setattr(Session, "run", lambda s, x, **_: run(s, x) + x.ndim)
    with pytest.raises(bitinfer.ModelFileError, match="differs between alone and in a batch"):
        models.from_sessions({"m": colours})
    monkeypatch.setattr(Session, "run", lambda s, x, **_: run(s, x) * np.float32("nan"))
    with pytest.raises(bitinfer.ModelFileError, match="not finite"):
        models.from_sessions({"m": colours})


# --- inference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 3), (5, 8, 8, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_what_is_inferred_is_what_the_session_says(
    serving: Serving, colours: Session, rng: np.random.Generator, shape: Any, dtype: Any
) -> None:
    x = rng.integers(0, 256, shape).astype(dtype)
    status, answer, _ = serving({"m": colours}).post("/v2/models/m/infer", tensor(x))
    assert status == 200, answer
    wanted = colours.run(x)
    (output,) = answer["outputs"]
    assert output["shape"] == list(wanted.shape)
    assert np.array(output["data"], np.float32).tobytes() == wanted.tobytes()


def test_a_network_with_several_outputs(serving: Serving) -> None:
    import hostile
    from bitinfer import modelfile

    session = Session(modelfile.from_bytes(hostile.example()), "reference")
    info = session.inputs[0]
    x = np.random.default_rng(1).standard_normal((2, *info.shape)).astype(np.float32)
    _, answer, _ = serving({"m": session}).post("/v2/models/m/infer", tensor(x, info.name))
    wanted = session.run(x)
    assert [output["name"] for output in answer["outputs"]] == list(wanted)
    for output in answer["outputs"]:
        got = np.array(output["data"], np.float32)
        assert got.tobytes() == wanted[output["name"]].tobytes()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_picture_is_classified(serving: Serving, colours: Session, colour: str) -> None:
    client = serving({"m": colours})
    body = encode(solid(colour, (30, 20)), "JPEG")
    status, answer, _ = client.post("/v2/models/m/versions/1/classify?top_k=2", body)
    assert status == 200
    assert answer["predictions"][0]["label"] == colour
    assert len(answer["predictions"]) == 2
    assert answer["backend"] == colours.backend
    assert set(answer["ms"]) == {"decode", "preprocess", "inference"}
    wanted = colours.classify(body, 2)
    assert [p["probability"] for p in answer["predictions"]] == [p.probability for p in wanted]


@pytest.mark.parametrize(
    ("query", "body", "status", "message"),
    [
        ("", b"", 400, "empty"),
        ("", b"hello", 400, "not a picture"),
        ("", encode(noise())[:-9], 400, "truncated"),
        ("?top_k=0", encode(noise()), 400, "top_k is '0'"),
        ("?top_k=-1", encode(noise()), 400, "top_k"),
        ("?top_k=99999999999999999999999", encode(noise()), 400, "top_k"),
        ("?top_k=a%0Ab", encode(noise()), 400, "top_k"),
    ],
)
def test_a_picture_that_is_none(
    serving: Serving, colours: Session, query: str, body: bytes, status: int, message: str
) -> None:
    got, answer, _ = serving({"m": colours}).post(f"/v2/models/m/classify{query}", body)
    assert got == status
    assert message in answer["error"]
    assert "\n" not in answer["error"]


def test_a_form_is_called_so(serving: Serving, colours: Session) -> None:
    form = b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n" + encode(noise())
    status, answer, _ = serving({"m": colours}).post(
        "/v2/models/m/classify", form, Content_Type="multipart/form-data; boundary=x"
    )
    assert status == 400
    assert answer["error"].startswith("the body is a form, wanted the bytes of a picture")


def test_a_model_without_preprocessing_takes_no_pictures(serving: Serving) -> None:
    client = serving({"m": Session(colour_model(preprocessing=None), "reference")})
    status, answer, _ = client.post("/v2/models/m/classify", encode(noise()))
    assert status == 400
    assert "does not take pictures" in answer["error"]
    x = np.zeros((8, 8, 3), np.uint8)
    status, answer, _ = client.post("/v2/models/m/infer", tensor(x))
    assert status == 400
    assert "UINT8, wanted FP32" in answer["error"]


def test_answers_are_what_their_structs_say(serving: Serving, colours: Session) -> None:
    import msgspec

    client = serving({"m": colours})
    x = np.zeros((8, 8, 3), np.float32)
    for kind, (_, answer, _) in (
        (documents.ServerMetadata, client.get("/v2")),
        (documents.ServerLive, client.get("/v2/health/live")),
        (documents.ServerReady, client.get("/v2/health/ready")),
        (documents.ModelMetadata, client.get("/v2/models/m")),
        (documents.ModelReady, client.get("/v2/models/m/ready")),
        (documents.Inference, client.post("/v2/models/m/infer", tensor(x))),
        (documents.Classification, client.post("/v2/models/m/classify", encode(noise()))),
        (documents.Failed, client.get("/v3")),
    ):
        again = msgspec.to_builtins(msgspec.convert(answer, kind, strict=True))
        assert json.loads(json.dumps(again)) == answer


# --- a client of others --------------------------------------------------------------------------


@pytest.fixture
def triton() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tritonclient.http", exc_type=ImportError)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_tritons_client(
    serving: Serving, colours: Session, triton: Any, binary_in: bool, binary_out: bool
) -> None:
    server = serving({"m": colours})
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("n")
    assert client.get_server_metadata()["name"] == "bitinfer"
    name = client.get_model_metadata("m")["inputs"][0]["name"]
    x = np.random.default_rng(2).standard_normal((3, 8, 8, 3)).astype(np.float32)
    asked = triton.InferInput(name, x.shape, "FP32")
    asked.set_data_from_numpy(x, binary_data=binary_in)
    outputs = [triton.InferRequestedOutput("score", binary_data=binary_out)]
    result = client.infer("m", [asked], outputs=outputs, request_id="one")
    assert result.get_response()["id"] == "one"
    assert result.as_numpy("score").tobytes() == colours.run(x).tobytes()
    result = client.infer("m", [asked], model_version="1")  # bytes of all outputs, by default
    assert result.as_numpy("score").tobytes() == colours.run(x).tobytes()
    with pytest.raises(triton.InferenceServerException, match="there is no model 'n'"):
        client.infer("n", [asked])
    client.close()


# --- metrics and description ---------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads_and_never_more_series(
    serving: Serving, colours: Session
) -> None:
    parser = pytest.importorskip("prometheus_client.parser")

    def series() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        _, text, headers = client.get("/metrics")
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parser.text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    client = serving({"m": colours})
    before = series()
    x = np.zeros((4, 8, 8, 3), np.float32)
    for _ in range(3):
        client.post("/v2/models/m/infer", tensor(x))
    client.post("/v2/models/nobody/infer", b"")
    client.post("/v2/models/m/infer", b"{")
    client.request("BREW", "/coffee", None, {"X-A": "b"})
    client.get("/" + "x" * 500)
    after = series()
    assert set(after) == set(before)
    changed = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    model = (("model", "m"), ("version", "1"))
    infer = ("endpoint", "infer")
    assert changed["bitinfer_samples_total", model] == 12
    assert changed["bitinfer_compute_seconds_count", model] == 3
    assert changed["bitinfer_requests_total", (infer, ("status", "200"))] == 3
    assert changed["bitinfer_requests_total", (infer, ("status", "404"))] == 1
    assert changed["bitinfer_requests_total", (infer, ("status", "400"))] == 1
    assert changed["bitinfer_request_seconds_count", (infer,)] == 5
    assert after["bitinfer_request_seconds_bucket", (infer, ("le", "+Inf"))] == 5
    assert 0 < after["bitinfer_compute_seconds_sum", model] < 3


def test_the_description_names_every_path(serving: Serving, colours: Session) -> None:
    from bitinfer.serve import app

    client = serving({"m": colours})
    _, described, _ = client.get("/openapi.json")
    paths = {path for path, *_ in app._ROUTES} - {"/openapi.json"}
    assert set(described["paths"]) == paths
    for path, method, *_ in app._ROUTES:
        if path != "/openapi.json":
            assert method.lower() in described["paths"][path]


@pytest.mark.filterwarnings("ignore")
def test_schemathesis_finds_nothing(
    serving: Serving, colours: Session, request: pytest.FixtureRequest
) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis

    client = serving({"m": colours})
    url = f"http://127.0.0.1:{client.port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    examples = 2000 if request.config.getoption("--long") else 15
    asked = 0

    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def try_one(case: Any) -> None:
            nonlocal asked
            asked += 1
            # The model in the path is the served one in every other case, so that bodies matter.
            if asked % 2 and "model" in (case.path_parameters or {}):
                case.path_parameters["model"] = "m"
            response = case.call(base_url=url, timeout=20)
            assert response.status_code < 500, response.text
            case.validate_response(
                response,
                checks=[schemathesis.checks.not_a_server_error, *_conformance(schemathesis)],
            )

        try_one()
    assert asked > 50


def _conformance(schemathesis: Any) -> list[Any]:
    from schemathesis.specs.openapi import checks

    return [checks.response_schema_conformance, checks.content_type_conformance]
