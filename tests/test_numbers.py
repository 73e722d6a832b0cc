"""Numbers that are none, numbers next to a threshold, and NumPy's warnings about either."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bitinfer
import hostile
from bitinfer import modelfile, zoo
from bitinfer.graph import GraphBuilder, passes
from bitinfer.model import Model
from bitinfer.session import Session

EXAMPLE = Path(__file__).parents[1] / "examples" / "lenet5.bin"

ONES = np.ones((1, 4), np.int8)
ZERO, ONE = np.zeros(4), np.ones(4)


def signs_of(b: GraphBuilder, x: str, threshold: float | None = None) -> str:
    """Return the sum of the four signs of a value."""
    given = None if threshold is None else np.full(4, threshold)
    return b.bdense(b.sign(x, threshold=given), ONES)


CHAINS: dict[str, Callable[[GraphBuilder], str]] = {
    "norm, falling": lambda b: signs_of(b, b.batch_norm(b.input, ZERO, ONE, -ONE)),
    "norm, rising": lambda b: signs_of(b, b.batch_norm(b.input, ZERO, ONE, ONE)),
    "norm, constant": lambda b: signs_of(b, b.batch_norm(b.input, ZERO, ONE, ZERO, -ONE)),
    "norm, tiny": lambda b: signs_of(b, b.batch_norm(b.input, ZERO, ONE, ONE * 1e-40, -ONE)),
    "clip": lambda b: signs_of(b, b.clip(b.input, -1, 1), 2),
    "sigmoid": lambda b: signs_of(b, b.sigmoid(b.input), 1.5),
    "relu": lambda b: signs_of(b, b.relu(b.input)),
    "prelu": lambda b: signs_of(b, b.prelu(b.input, ONE / 4)),
    "dense": lambda b: b.dense(b.input, np.eye(4)),
    "softmax": lambda b: b.softmax(b.input),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_no_pass_changes_what_becomes_of_any_number(chain: str, backend_name: str) -> None:
    b = GraphBuilder("g", (4,))
    model = Model(*b.build(CHAINS[chain](b)))
    sessions = [Session(model, backend_name, skip_passes=skip) for skip in ((), "all")]
    for value in (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 0.0, -0.0, 1e-45, -1e-45, 1.5):
        x = np.full(4, value, np.float32)
        first, second = (session.run(x) for session in sessions)
        assert np.array_equal(first, second, equal_nan=True)
        assert np.isnan(first).all() == (not np.isfinite(value))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("skip", [(), "all"])
def test_a_sample_with_a_number_that_is_none_has_no_answer(
    value: float, skip: str, backend_name: str, rng: np.random.Generator
) -> None:
    session = Session(modelfile.from_bytes(hostile.example()), backend_name, skip_passes=skip)
    shape = session.inputs[0].shape
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    whole = session.run(x)
    x[1, 2, 3, 1] = value
    given = {name: np.ones_like(y) for name, y in whole.items()}
    for found in (session.run(x), session.run(x, given), session.run(x.astype(np.float64))):
        for name, y in found.items():
            assert np.isnan(y[1]).all()
            assert np.array_equal(y[[0, 2]], whole[name][[0, 2]])
    assert all(np.isnan(y).all() for y in session.run(x[1]).values())
    assert np.isnan(session.run(np.full(shape, 1e300))[session.outputs[0].name]).all()


def test_a_picture_of_nan_is_not_classified() -> None:
    session = bitinfer.load(EXAMPLE)
    output = session.run(np.full((28, 28, 1), np.nan, np.float32))
    assert np.isnan(output).all()
    assert all(np.isnan(p.probability) for p in session.predictions(output))


def test_alexnet_gives_the_same_for_infinite_pixels_with_and_without_passes() -> None:
    model = Model(*zoo.build("xnor-alexnet", zoo.RandomParameters(0)))
    x = np.random.default_rng(0).standard_normal((227, 227, 3)).astype(np.float32)
    for value in (np.nan, np.inf):
        x[100:104, 100:104] = value
        for skip in ((), "all"):
            assert np.isnan(Session(model, skip_passes=skip).run(x)).all()


def agreements(seed: int, channels: int) -> Model:
    """Return a layer of agreements, a BatchNorm whose zero is next to a sum, and its signs.

    The BatchNorm is handed out, too, so that passes cannot make one threshold of all of it.
    """
    rng = np.random.default_rng(seed)
    k = 300
    mean = rng.uniform(0, k, channels).astype(np.float32)
    variance = rng.uniform(10, 900, channels).astype(np.float32)
    gamma = rng.uniform(-1.5, 1.5, channels).astype(np.float32)
    exact = (np.round(mean) - mean.astype(float)) * gamma / np.sqrt(variance.astype(float) + 2e-5)
    beta = (-exact).astype(np.float32)
    b = GraphBuilder("agreements", (k,))
    half = np.full(channels, 0.5)
    weight = rng.choice([-1, 1], (channels, k))
    y = b.bdense(b.sign(b.input), weight, alpha=half, bias=half * k)
    norm = b.batch_norm(y, mean, variance, gamma, beta, epsilon=2e-5, name="norm")
    signs = b.bdense(b.sign(norm), 2 * np.eye(channels) - 1, name="signs")
    return Model(*b.build(norm, signs))


@pytest.mark.parametrize("seed", range(8))
def test_signs_beside_a_folded_batch_norm_are_those_of_the_exact_number(
    seed: int, backend_name: str
) -> None:
    model = agreements(seed, 200)
    folded, plain = (Session(model, backend_name, skip_passes=skip) for skip in ((), "all"))
    assert "batch_norm" not in {n.operation for n in passes.optimise(model.checked).graph.nodes}
    x = np.random.default_rng(seed).standard_normal((150, 300)).astype(np.float32)
    first, second = folded.run(x), plain.run(x)
    assert np.array_equal(first["signs"], second["signs"])
    np.testing.assert_allclose(first["norm"], second["norm"], rtol=1e-4, atol=1e-5)
    negative = second["norm"] < 0
    assert np.array_equal(plain.run(x)["signs"], np.where(negative, -1, 1) @ (2 * np.eye(200) - 1))


def test_an_integer_just_below_the_zero_of_a_batch_norm_is_negative(backend_name: str) -> None:
    b = GraphBuilder("t", (1,))
    terms = ([584.83264], [653.917], [0.81096435], [-0.06873564])
    norm = b.batch_norm(b.input, *terms, epsilon=2e-5, name="norm")
    model = Model(*b.build(norm, b.bdense(b.sign(norm), np.ones((1, 1)), name="sign")))
    for skip in ((), "all"):
        found = Session(model, backend_name, skip_passes=skip).run(np.array([587], np.float32))
        assert found["norm"] == pytest.approx(-1.7068e-6, rel=1e-4)
        assert found["sign"] == -1


STRICT = """
    import sys, warnings
    warnings.simplefilter("error")
    import numpy as np
    np.seterr(all="raise")
    import bitinfer
    from bitinfer import modelfile, zoo
    from bitinfer.model import Model
    from bitinfer.session import Session
    import hostile

    huge = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 1e300, 1e-300, 5e-324, 0.0]
    for backend in sys.argv[2].split(","):
        for model in (
            modelfile.from_bytes(hostile.example()),
            modelfile.from_bytes(hostile.loose_example()),
            modelfile.load(sys.argv[1]),
        ):
            for skip in ((), "all"):
                session = Session(model, backend, skip_passes=skip)
                shape = session.inputs[0].shape
                for value in huge:
                    for dtype in (np.float64, np.float32, np.float16, np.longdouble):
                        with np.errstate(all="ignore"):
                            x = np.full((2, *shape), value).astype(dtype)
                        session.run(x)
                        found = session.run(x[0])
                        for output in found.values() if isinstance(found, dict) else [found]:
                            if output.size == np.prod(session.outputs[0].shape):
                                session.predictions(output.astype(np.float64) * 1)
    session.predictions(np.array([3e38, -3e38, 1e300, np.inf, np.nan, 0, 0, 0, 0, 0], np.float64))
    session.classify(sys.argv[3])
    modelfile.to_bytes(Model(*zoo.build("xnor-nin", zoo.RandomParameters(0))))
"""


def test_numpy_neither_warns_nor_raises() -> None:
    names, picture = "auto,reference", EXAMPLE.with_name("digit_7.png")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STRICT), EXAMPLE, names, picture],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""


def test_a_number_that_is_not_finite_is_seen_wherever_it_stands() -> None:
    pytest.importorskip("bitinfer.backends.native._native", exc_type=ImportError)
    from bitinfer.backends.native import load_library

    native = load_library()
    largest, least = np.finfo(np.float32).max, np.float32(1e-45)
    for size in range(1, 50):
        x = np.resize(np.array([largest, -largest, least, -least, 0.0, -0.0], np.float32), size)
        pointer = native.ffi.from_buffer("float[]", x)
        assert native.lib.bi_all_finite(pointer, size) == 1
        for at in range(size):
            kept = x[at]
            for value in (np.nan, -np.nan, np.inf, -np.inf):
                x[at] = value
                assert native.lib.bi_all_finite(pointer, size) == 0
            x[at] = kept
