"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import mutants
from bitinfer import backends
from bitinfer.backends import Backend
from harness import known_backends

if LIBRARY := os.environ.get("BITINFER_TEST_LIBRARY"):
    # A library built from csrc/ by other means takes the place of the extension (mutants.py).
    mutants.install(Path(LIBRARY))

ROOT = Path(__file__).parents[1]
"""The checkout."""

hypothesis.settings.register_profile(
    "short", max_examples=60, deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.register_profile(
    "long",
    max_examples=5_000,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bitinfer")
    group.addoption("--long", action="store_true", help="run the tests that take minutes, too")
    group.addoption(
        "--share",
        metavar="K/N",
        help="run nothing but the part K, from 0 to N - 1, of the tests that take minutes",
    )
    group.addoption(
        "--seed", type=int, default=0, help="seed of the random arrays in tests (default: 0)"
    )
    group.addoption(
        "--expect-backends",
        metavar="NAME,...",
        help="fail at once unless exactly these backends can be tested here, such as "
        "native:portable,native:popcnt,native:avx2,numba,reference",
    )


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")
    expected = config.getoption("--expect-backends")
    here = [name for name, reason in known_backends() if not reason]
    if expected is not None and sorted(expected.split(",")) != sorted(here):
        raise pytest.UsageError(f"--expect-backends={expected}: here are {','.join(here)}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [
        f"bitinfer: backends {', '.join(name for name, why in known_backends() if not why)}; "
        f"seed {config.getoption('--seed')}",
        *(f"bitinfer: no {name}: {why}" for name, why in known_backends() if why),
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long = [item for item in items if item.get_closest_marker("long")]
    if share := config.getoption("--share"):
        part, _, parts = share.partition("/")
        chosen = long[int(part) :: int(parts)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    elif not config.getoption("--long"):
        for item in long:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with pytest --long"))


def backend_params(prefix: str = "") -> list[object]:
    """Return the parameters of a fixture over the backends whose names start with ``prefix``."""
    return [
        pytest.param(
            name, marks=[pytest.mark.skip(reason=_first_clause(name, reason))] * bool(reason)
        )
        for name, reason in known_backends()
        if name.startswith(prefix)
    ]


def _first_clause(name: str, reason: str) -> str:
    return f"{name}: {reason.partition(';')[0]}"


@pytest.fixture(params=backend_params())
def backend_name(request: pytest.FixtureRequest) -> str:
    """Every backend and native instruction set, one after the other."""
    return str(request.param)


@pytest.fixture
def backend(backend_name: str) -> Backend:
    """The backend of ``backend_name``."""
    return backends.select(backend_name)


@pytest.fixture(params=backend_params("native"))
def native_name(request: pytest.FixtureRequest) -> str:
    """Every native instruction set, one after the other."""
    return str(request.param)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers, the same in every run of the same test with the same ``--seed``."""
    seed = request.config.getoption("--seed")
    print(f"rng: repeat with pytest --seed={seed} '{request.node.nodeid}'")  # shown on failure
    return np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of weights and data sets beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder 'shared' beside the checkout: no trained weights, no data sets")
    return folder
