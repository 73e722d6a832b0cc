"""bitinfer.ray against a real Ray on this machine: a deployment of two replicas, and batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import COLOURS, colour_model, encode, save, solid

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]

HEAD = """
import os, sys
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import ray
ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", num_cpus=3, log_to_driver=False)
"""

SERVE = """
import json, socket, urllib.request
from ray import serve
import bitinfer.ray
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
serve.start(http_options={"host": "127.0.0.1", "port": port})
app = bitinfer.ray.deployment([sys.argv[1]], backend="reference", num_replicas=2,
                              ray_actor_options={"num_cpus": 1})
serve.run(app, route_prefix="/")

def ask(path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)

picture = open(sys.argv[2], "rb").read()
tensor = {"name": "input", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": [255, 0, 0] * 64}
body = json.dumps({"inputs": [tensor]}).encode()
print("RESULT", json.dumps({
    "ready": ask("/v2/health/ready"),
    "classify": [ask("/v2/models/colours/classify?top_k=1", picture) for _ in range(6)],
    "infer": ask("/v2/models/colours/infer", body),
    "missing": ask("/v2/models/other/infer", body),
    "replicas": len(serve.status().applications["default"].deployments["Replica"]
                    .replica_states) and
                serve.status().applications["default"].deployments["Replica"]
                    .replica_states["RUNNING"],
}))
serve.shutdown()
ray.shutdown()
"""

DATA = """
import json
import numpy as np
import bitinfer.ray
files = [open(path, "rb").read() for path in sys.argv[2:]] + [b"no picture"]
dataset = ray.data.from_items([{"bytes": data, "key": i} for i, data in enumerate(files)])
done = dataset.map_batches(bitinfer.ray.Classifier, fn_constructor_args=(sys.argv[1], "reference"),
                           concurrency=2, batch_size=2)
rows = sorted(done.take_all(), key=lambda row: row["key"])
print("RESULT", json.dumps([[row["label"], int(row["index"]), row["error"]] for row in rows]))
ray.shutdown()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(colour_model(), tmp_path / "colours.bin")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for colour in COLOURS:
        paths.append(tmp_path / f"{colour}.png")
        paths[-1].write_bytes(encode(solid(colour)))
    return paths


def run(script: str, *arguments: object) -> str:
    """Run a script in a process of its own; return the result that it prints."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return line.removeprefix("RESULT ")


def test_a_deployment_of_two_replicas_answers_the_protocol(
    model: Path, pictures: list[Path]
) -> None:
    answers = json.loads(run(SERVE, model, pictures[1]))
    assert answers["ready"] == [200, {"ready": True}]
    for status, answer in answers["classify"]:
        assert (status, answer["predictions"][0]["label"]) == (200, "green")
    status, answer = answers["infer"]
    assert status == 200
    assert np.argmax(answer["outputs"][0]["data"]) == 0
    assert answers["missing"][0] == 404
    assert answers["replicas"] == 2


def test_a_dataset_is_classified_and_a_bad_picture_is_a_row(
    model: Path, pictures: list[Path]
) -> None:
    found = json.loads(run(DATA, model, *pictures))
    assert [row[:2] for row in found[:3]] == [["red", 0], ["green", 1], ["blue", 2]]
    assert [row[2] for row in found[:3]] == [""] * 3
    assert found[3][:2] == ["", -1]
    assert "not a picture" in found[3][2]


def test_a_batch_on_a_cluster_is_the_same_file(
    model: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = []
    for name, options in (("threads", ()), ("ray", ("--ray", "--replicas=2"))):
        output = tmp_path / f"{name}.parquet"
        arguments = ["batch", "--backend=reference", "-q", f"-o{output}", *options]
        inputs = map(str, (model, *pictures, bad))
        done = subprocess.run(
            [sys.executable, "-m", "bitinfer", *arguments, *inputs],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 5, done.stderr[-3000:]
        files.append(output.read_bytes())
    assert files[0] == files[1]


def test_pictures_come_as_bytes_arrays_or_paths(model: Path, pictures: list[Path]) -> None:
    from PIL import Image

    from bitinfer.errors import BitInferError
    from bitinfer.ray import Classifier

    classifier = Classifier(str(model), "reference")
    images = np.stack([np.asarray(Image.open(path)) for path in pictures])
    for columns in (
        {"bytes": np.array([path.read_bytes() for path in pictures], object)},
        {"image": images},
        {"path": np.array([str(path) for path in pictures], object)},
    ):
        found = classifier(columns)
        assert found["label"].tolist() == list(COLOURS)
        assert found["error"].tolist() == [""] * 3
        assert columns.keys() <= found.keys()
    with pytest.raises(BitInferError, match="none is bytes, image or path"):
        classifier({"x": np.zeros(1)})
