"""session.py: arrays in, arrays out; pictures in, classes out; from many threads at once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import io
import math
import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import bitinfer
import hostile
import oracle
from bitinfer import backends, modelfile
from bitinfer.errors import BackendError, ImageError, ModelFileError, PicklingError, ShapeError
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing
from bitinfer.plan import cost
from bitinfer.session import Prediction, Session, TensorInfo
from graph_examples import every_node
from harness import check_layers, float_values
from helpers import colour_model, mean_image_model


@pytest.fixture
def model() -> Model:
    """A network of (9, 8, 3) with three outputs."""
    return modelfile.from_bytes(hostile.example())


def one_output(model: Model) -> Model:
    graph = model.graph
    return dataclasses.replace(
        model, graph=type(graph)(graph.name, graph.input, graph.nodes, graph.outputs[:1])
    )


# --- arrays --------------------------------------------------------------------------------------


class Stop(Exception):
    """What a check raises."""


@pytest.mark.parametrize("samples", [1, 5])
def test_what_a_check_raises_ends_a_call_and_the_next_one_is_as_ever(
    model: Model, backend_name: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "WORK_AT_ONCE", 1)  # as if the network were long
    if backend_name.startswith("native"):
        from bitinfer.backends.native import executor

        monkeypatch.setattr(executor, "LONGEST_CALL_S", 0.0)
    session, left = Session(model, backend_name), 3
    x = np.random.default_rng(0).standard_normal((samples, 9, 8, 3)).astype(np.float32)
    wanted = Session(model, backend_name).run(x)

    def check() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Stop

    for call in (
        session.run,
        session.observe,
        lambda x, check: session.measure_steps(x, 9, check=check),
    ):
        left = 3
        with pytest.raises(Stop):
            call(x, check=check)
        assert left == 0
    found = session.run(x, check=lambda: None)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("has_mean_image", [False, True])
def test_observed_values_are_those_of_the_input_as_it_is_normalised(
    backend_name: str, dtype: type, has_mean_image: bool
) -> None:
    model = mean_image_model() if has_mean_image else colour_model()
    session = Session(model, backend_name)
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(dtype)
    plan, values = session.observe(x)
    assert np.array_equal(values[session.outputs[0].name], session.run(x))
    assert set(values) == set(plan.values)
    with pytest.raises(ShapeError, match="wanted"):
        session.observe(x[0])


OUTPUT_SHAPES = [(10,), (10,), (4, 4, 66), (1, 5, 24)]
"""Of the network with every node."""


def test_a_session_says_what_goes_in_and_what_comes_out(model: Model, backend_name: str) -> None:
    session = Session(model, backend_name)
    assert session.inputs == (TensorInfo("input", (9, 8, 3), "float32"),)
    assert [info.shape for info in session.outputs] == OUTPUT_SHAPES
    assert [info.name for info in session.outputs] == list(model.graph.outputs)
    assert session.backend == backend_name
    assert repr(session) == f"<bitinfer.Session 'every-node' on {backend_name}>"


def test_one_sample_gives_an_array_and_a_batch_gives_one_with_n_in_front(
    model: Model, backend_name: str, rng: np.random.Generator
) -> None:
    session = Session(one_output(model), backend_name)
    batch = rng.standard_normal((5, 9, 8, 3))
    together = session.run(batch)
    assert together.shape == (5, 10)
    assert together.dtype == np.float32
    for i in range(5):
        alone = session.run(batch[i])
        assert alone.shape == (10,)
        assert np.array_equal(alone, together[i])
    assert session.run(batch[:0]).shape == (0, 10)


def test_several_outputs_come_by_name(model: Model, rng: np.random.Generator) -> None:
    session = Session(model)
    values = session.run(rng.standard_normal((2, 9, 8, 3)))
    assert list(values) == list(model.graph.outputs)
    assert [value.shape for value in values.values()] == [(2, *shape) for shape in OUTPUT_SHAPES]
    one = session.run(np.zeros((9, 8, 3)))
    assert [value.shape for value in one.values()] == OUTPUT_SHAPES


def test_vectors_are_run_alike(backend_name: str, rng: np.random.Generator) -> None:
    b = GraphBuilder("vectors", (70,))
    weight = rng.standard_normal((4, 70))
    session = Session(Model(*b.build(b.bdense(b.sign(b.input), weight))), backend_name)
    x = rng.standard_normal((3, 70))
    wanted = oracle.signs(x) @ oracle.signs(weight).T
    assert np.array_equal(session.run(x), wanted)
    assert np.array_equal(session.run(x[1]), wanted[1])


def test_every_layer_is_right_through_the_file_and_the_session(
    backend_name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    graph, tensors = every_node(5)
    graph = float_values(graph, tensors)
    modelfile.save(Model(graph, tensors), tmp_path / "m.bin")
    x = rng.standard_normal((9, 8, 3)).astype(np.float32)
    values = bitinfer.load(tmp_path / "m.bin", backend=backend_name).run(x)
    check_layers(graph, tensors, x, values)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.bool_, ">f4", list])
def test_floats_of_any_type_are_the_input_as_it_is(model: Model, dtype: object) -> None:
    session = Session(one_output(model))
    x = np.arange(216).reshape(9, 8, 3) % 5 * 1.0
    wanted = session.run((x != 0 if dtype is np.bool_ else x).astype(np.float32))
    given = x.tolist() if dtype is list else x.astype(dtype)
    assert np.array_equal(session.run(given), wanted)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32, np.uint64, list, "c8"]
)
def test_numbers_that_are_neither_pixels_nor_floats_are_refused(
    model: Model, dtype: object
) -> None:
    session = Session(one_output(model))
    x = np.arange(216).reshape(9, 8, 3) % 5
    given = x.tolist() if dtype is list else x.astype(dtype)
    with pytest.raises(ShapeError, match=r"wanted uint8 \(pixels of 0 to 255\) or float32"):
        session.run(given)
    with pytest.raises(ShapeError, match="wanted uint8"):
        session.profile(given)


def test_arrays_of_any_layout_are_taken(model: Model, rng: np.random.Generator) -> None:
    session = Session(one_output(model))
    x = rng.standard_normal((18, 8, 3)).astype(np.float32)
    wanted = session.run(np.ascontiguousarray(x[::-2]))
    assert np.array_equal(session.run(x[::-2]), wanted)
    assert np.array_equal(session.run(np.asfortranarray(x[::-2])), wanted)
    frozen = np.ascontiguousarray(x[::-2])
    frozen.flags.writeable = False
    assert np.array_equal(session.run(frozen), wanted)


def test_results_are_the_callers_to_keep(model: Model) -> None:
    session = Session(one_output(model))
    first = session.run(np.ones((9, 8, 3)))
    kept = first.copy()
    session.run(-np.ones((9, 8, 3)))
    assert np.array_equal(first, kept)
    first[...] = 0


@pytest.mark.parametrize(
    "shape",
    [(), (3,), (8, 3), (8, 9, 3), (9, 8, 4), (9, 8), (2, 9, 8), (1, 2, 9, 8, 3), (0,), (9, 8, 0)],
    ids=str,
)
def test_an_array_of_another_shape_is_refused_with_both_shapes(
    model: Model, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError) as caught:
        Session(model).run(np.zeros(shape))
    assert str(shape) in str(caught.value)
    assert "(9, 8, 3) or (N, 9, 8, 3)" in str(caught.value)


@pytest.mark.parametrize(
    "x", [np.zeros((9, 8, 3), complex), np.full((9, 8, 3), "1"), np.full((9, 8, 3), None)]
)
def test_an_array_that_is_not_of_real_numbers_is_refused(model: Model, x: np.ndarray) -> None:
    with pytest.raises(ShapeError, match=r"wanted uint8 \(pixels of 0 to 255\) or float32"):
        Session(model).run(x)


def test_zero_of_either_sign_counts_as_plus_one(backend_name: str) -> None:
    b = GraphBuilder("g", (4,))
    session = Session(Model(*b.build(b.bdense(b.sign(b.input), np.eye(4) * 2 - 1))), backend_name)
    signs = np.array([1, 1, -1, 1])
    x = np.array([0.0, 1e-45, -1e-45, -0.0])
    assert np.array_equal(session.run(x), oracle.dense(signs, np.eye(4) * 2 - 1))


# --- pixels and pictures -------------------------------------------------------------------------


def test_pixels_give_what_their_normalised_floats_give(
    model: Model, backend_name: str, rng: np.random.Generator
) -> None:
    session = Session(model, backend_name)
    pixels = rng.integers(0, 256, (4, 9, 8, 3), np.uint8)
    p = model.preprocessing
    assert p is not None
    floats = oracle.normalize(pixels, p.scale, p.mean, p.std).astype(np.float32)
    for name, value in session.run(pixels).items():
        assert np.allclose(value, session.run(floats)[name], rtol=1e-5, atol=1e-4)
    for name, value in session.run(pixels[1]).items():
        assert np.allclose(value, session.run(floats[1])[name], rtol=1e-5, atol=1e-4)


def test_zero_padding_comes_after_normalisation(backend_name: str) -> None:
    b = GraphBuilder("g", (1, 1, 1))
    y = b.conv2d(b.input, np.ones((1, 3, 3, 1)), padding=1)
    grey = Preprocessing(color="grey", mean=(0.5,), std=(0.5,), scale=1 / 255)
    session = Session(Model(*b.build(y), preprocessing=grey), backend_name)
    assert session.run(np.full((1, 1, 1), 255, np.uint8)).item() == 1.0


def test_pixels_without_preprocessing_are_refused(model: Model) -> None:
    session = Session(dataclasses.replace(model, preprocessing=None))
    with pytest.raises(ShapeError, match="does not say how to normalise"):
        session.run(np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(ModelFileError, match="no preprocessing"):
        session.classify(picture(9, 8))


def picture(height: int, width: int) -> bytes:
    """Return the bytes of a PNG of one colour to another."""
    from PIL import Image

    pixels = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_classified_as_its_pixels_are(
    model: Model, backend_name: str, tmp_path: Path
) -> None:
    from bitinfer import vision

    session = Session(one_output(model), backend_name)
    path = tmp_path / "p.png"
    path.write_bytes(picture(40, 30))
    pixels = vision.prepare(vision.decode(path), model.preprocessing, (9, 8, 3))
    wanted = session.predictions(session.run(pixels), top_k=3)
    assert session.classify(path, top_k=3) == wanted
    assert session.classify(str(path), top_k=3) == wanted
    assert session.classify(path.read_bytes(), top_k=3) == wanted
    with path.open("rb") as file:
        assert session.classify(file, top_k=3) == wanted


def test_decoded_pictures_and_buffers_are_classified_as_their_file(
    model: Model, tmp_path: Path
) -> None:
    from PIL import Image

    session = Session(one_output(model))
    data = picture(40, 30)
    image = Image.open(io.BytesIO(data))
    path = tmp_path / "p.png"
    path.write_bytes(data)
    wanted = session.classify(data)
    for source in (
        path,
        bytearray(data),
        memoryview(data),
        np.frombuffer(data, np.uint8),
        image,
        np.asarray(image),
        np.asfortranarray(np.asarray(image)),
        np.dstack([np.asarray(image), np.full((40, 30), 255, np.uint8)]),
    ):
        assert session.classify(source) == wanted
        assert np.array_equal(session.prepare(source), session.prepare(data))
    assert np.array_equal(session.run(session.prepare(data)), session.run(session.prepare(path)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "picture: came as NoneType, wanted a path"),
        (7, "came as int"),
        ([b"x"], "came as list"),
        (io.StringIO("text"), "came as StringIO"),
        (np.zeros((4, 4), np.float32), r"came as an array float32\(4, 4\), wanted uint8"),
        (np.zeros((3, 5, 5), np.uint8), r"wanted uint8 of \(H, W\)"),
        (np.zeros((4, 4, 2), np.uint8), r"wanted uint8 of \(H, W\)"),
        (np.zeros((0, 4), np.uint8), "at least one"),
        (np.zeros(5, np.uint8), "not a picture"),
        (memoryview(b""), "empty"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_picture_is_an_image_error(model: Model, source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        Session(one_output(model)).classify(source)
    assert "\n" not in str(caught.value)


def test_a_closed_pillow_image_is_no_damaged_picture(model: Model, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "p.png"
    path.write_bytes(picture(9, 8))
    with Image.open(path) as closed:
        pass
    with pytest.raises(ImageError, match="picture: a Pillow image that is of no use"):
        Session(one_output(model)).classify(closed)


def test_pillow_images_whose_range_is_not_known_are_refused(model: Model) -> None:
    from PIL import Image

    for mode in ("F", "I"):
        with pytest.raises(ImageError, match=f"mode {mode}, whose range is not known"):
            Session(one_output(model)).classify(Image.new(mode, (9, 8)))


def test_a_model_is_loaded_from_bytes_buffers_and_files(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    modelfile.save(model, path)
    data = path.read_bytes()
    x = np.ones((9, 8, 3), np.float32)
    wanted = bitinfer.load(path).run(x)
    for source in (str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        values = bitinfer.load(source).run(x)
        assert all(np.array_equal(values[name], wanted[name]) for name in wanted)
    with path.open("rb") as file:
        assert bitinfer.load(file).path is None
    with pytest.raises(PicklingError, match="by its path"):
        pickle.dumps(bitinfer.load(data))


@pytest.mark.parametrize(
    "source", [None, 3, io.StringIO("x"), ["m.bin"]], ids=lambda value: type(value).__name__
)
def test_what_is_no_model_is_a_model_file_error(source: object) -> None:
    with pytest.raises(ModelFileError, match=f"came as {type(source).__name__}"):
        bitinfer.load(source)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\3\4" + bytes(99), "bitinfer convert"),
        (b"\x80\2}q\0." + bytes(99), "bitinfer convert"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "bitinfer convert"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture, where a model file is wanted"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "a picture, where a model file is wanted"),
        (b"<!DOCTYPE html>" + bytes(99), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_another_file_in_a_models_place_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        bitinfer.load(data)


def test_the_first_of_several_outputs_classifies(model: Model) -> None:
    several, one = Session(model), Session(one_output(model))
    assert several.classify(picture(16, 16)) == one.classify(picture(16, 16))


# --- predictions ---------------------------------------------------------------------------------


def logits(labels: tuple[str, ...] = ()) -> Session:
    b = GraphBuilder("g", (4,))
    return Session(Model(*b.build(b.relu(b.input)), labels=labels))


def test_predictions_are_the_softmax_best_first() -> None:
    session = logits(("a", "b", "c", "d"))
    scores = np.array([1.0, 3.0, 2.0, 0.0])
    found = session.predictions(scores, top_k=3)
    assert [(p.index, p.label) for p in found] == [(1, "b"), (2, "c"), (0, "a")]
    assert [p.probability for p in found] == pytest.approx(oracle.softmax(scores)[[1, 2, 0]])
    assert isinstance(found[0], Prediction)


def test_a_network_that_ends_in_softmax_gives_probabilities_already() -> None:
    b = GraphBuilder("g", (3,))
    session = Session(Model(*b.build(b.softmax(b.input))))
    found = session.predictions(session.run(np.log([0.5, 0.3, 0.2])))
    assert [p.probability for p in found] == pytest.approx([0.5, 0.3, 0.2])


def test_without_labels_the_index_is_the_label() -> None:
    assert [p.label for p in logits().predictions(np.arange(4))] == ["3", "2", "1", "0"]


def test_equal_scores_keep_the_order_of_the_classes() -> None:
    assert [p.index for p in logits().predictions(np.zeros(4))] == [0, 1, 2, 3]


def test_more_classes_than_there_are_gives_all() -> None:
    assert len(logits().predictions(np.zeros(4), top_k=1000)) == 4


@pytest.mark.parametrize(("scores", "top_k"), [(3, 5), (8, 5), (4, 0), (4, -1)])
def test_other_numbers_of_scores_are_refused(scores: int, top_k: int) -> None:
    with pytest.raises(ShapeError, match="wanted 4 scores"):
        logits().predictions(np.zeros(scores), top_k)


def test_scores_that_are_not_finite_are_no_error() -> None:
    assert len(logits().predictions(np.array([np.nan, np.inf, -np.inf, 1e30]))) == 4


# --- loading -------------------------------------------------------------------------------------


def test_loading_takes_a_path_and_a_backend(
    tmp_path: Path, model: Model, backend_name: str
) -> None:
    modelfile.save(model, tmp_path / "m.bin")
    for path in (tmp_path / "m.bin", str(tmp_path / "m.bin")):
        assert bitinfer.load(path, backend_name).backend == backend_name


def test_an_unknown_backend_is_refused(tmp_path: Path, model: Model) -> None:
    modelfile.save(model, tmp_path / "m.bin")
    with pytest.raises(BackendError, match="unknown backend 'gpu'"):
        bitinfer.load(tmp_path / "m.bin", backend="gpu")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(hostile.example()[:-1])
    with pytest.raises(ModelFileError, match=r"m\.bin"):
        bitinfer.load(tmp_path / "m.bin")


def test_every_public_name_is_there() -> None:
    assert set(bitinfer.__all__) <= set(dir(bitinfer))
    for name in bitinfer.__all__:
        assert getattr(bitinfer, name) is not None
    with pytest.raises(AttributeError, match="'bitinfer' has no attribute 'nothing'"):
        _ = bitinfer.nothing


# --- threads, forks, memory ----------------------------------------------------------------------


def test_eight_threads_on_one_new_session_get_the_same_bits(
    model: Model, backend_name: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, 9, 8, 3)).astype(np.float32)
    pixels = rng.integers(0, 256, (3, 9, 8, 3), np.uint8)
    quiet = Session(model, backend_name)
    wanted = [{n: v.tobytes() for n, v in quiet.run(given).items()} for given in (x, pixels)]
    session = Session(model, backend_name)  # binds while all threads want it

    def work(number: int) -> bool:
        value = session.run((x, pixels)[number % 2])
        return {n: v.tobytes() for n, v in value.items()} == wanted[number % 2]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))


@pytest.mark.long
def test_eight_threads_get_the_same_bits_a_hundred_thousand_times(
    model: Model, native_name: str, rng: np.random.Generator
) -> None:
    session = Session(one_output(model), native_name)
    x = rng.standard_normal((9, 8, 3)).astype(np.float32)
    wanted = session.run(x).tobytes()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: session.run(x).tobytes() == wanted, range(100_000)))


def resident_bytes() -> int:
    gc.collect()
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: the size of the process is not known")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_loading_and_dropping_models_takes_no_more_memory(tmp_path: Path, model: Model) -> None:
    modelfile.save(model, tmp_path / "m.bin")

    def once() -> None:
        bitinfer.load(tmp_path / "m.bin").run(np.zeros((9, 8, 3), np.uint8))

    for _ in range(30):
        once()
    before = resident_bytes()
    for _ in range(150):
        once()
    assert resident_bytes() - before < 3 << 20


def test_loading_and_dropping_models_leaves_no_file_open(tmp_path: Path, model: Model) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc: the open files are not known")
    modelfile.save(model, tmp_path / "m.bin")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        bitinfer.load(tmp_path / "m.bin").run(np.zeros((9, 8, 3)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("backend_name", ["native", "numba", "reference"])
def test_a_session_that_was_used_serves_child_processes(
    tmp_path: Path, model: Model, method: str, backend_name: str
) -> None:
    reasons = {status.name: status.reason for status in backends.status() if not status.available}
    if backend_name in reasons:
        pytest.skip(f"{backend_name}: {reasons[backend_name]}")
    modelfile.save(one_output(model), tmp_path / "m.bin")
    script = tmp_path / "children.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys, warnings
            import numpy as np
            import bitinfer

            warnings.simplefilter("ignore", DeprecationWarning)
            path, name, method = sys.argv[1:]
            session = bitinfer.load(path, backend=name)
            x = np.ones((9, 8, 3), np.float32)
            session.run(x)

            def work(i):
                return session.run(x * (i - 2)).tolist()

            if __name__ == "__main__":
                with multiprocessing.get_context(method).Pool(2) as pool:
                    assert pool.map(work, range(4)) == [work(i) for i in range(4)]
                print("same")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "m.bin"), backend_name, method],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "same\n", done.stderr


def test_a_small_network_takes_less_than_a_millisecond(native_name: str) -> None:
    """One call into C for the whole network, not one for each layer."""
    b = GraphBuilder("g", (4, 4, 8))
    x = b.input
    for _ in range(40):
        x = b.bconv2d(b.sign(x), np.ones((8, 1, 1, 8)))
    session = Session(Model(*b.build(x)), native_name)
    sample = np.zeros((4, 4, 8), np.float32)
    session.run(sample)
    best = math.inf
    for _ in range(50):
        began = time.perf_counter()
        session.run(sample)
        best = min(best, time.perf_counter() - began)
    assert best < 1e-3
