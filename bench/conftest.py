"""Options and fixtures of the benchmarks.

    pytest bench -k layers --benchmark-json=layers.json
    pytest bench -k narrow --benchmark-json=narrow.json
    pytest bench -k networks --benchmark-json=networks.json
    pytest bench -k figure4 --benchmark-json=figure4.json
    pytest bench -k kernels
    bitinfer report layers.json narrow.json figure4.json networks.json -o report.html

The samples of all engines of one layer are taken in turn when the first test of the layer begins;
the tests only hand them to pytest-benchmark (docs/performance.md says why).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rig import engines, network_engines, probes, sampling
from rig.layers import Layer
from rig.measuring import Measured, measure
from rig.networks import Case
from rig.probes import Probes
from rig.sampling import Effort


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bitinfer benchmarks")
    default = Effort()
    group.addoption(
        "--rounds",
        type=int,
        default=default.rounds,
        metavar="N",
        help=f"sample every engine N times (default: {default.rounds}); more often while too few "
        "samples are clean",
    )
    group.addoption(
        "--budget",
        type=float,
        default=default.budget_s,
        metavar="SECONDS",
        help=f"sample each subject for about this long at most (default: {default.budget_s:.0f})",
    )
    group.addoption("--quick", action="store_true", help="a few rounds, to see that all works")


@pytest.fixture(scope="session")
def core() -> Iterator[Probes]:
    """The probes, with the process tied to one CPU until the end."""
    core = probes.make()
    probes.pin_to_quietest(core)
    yield core
    probes.release()


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest, core: Probes) -> Measured:
    """Samples of all selected engines of one layer or network, taken in turn."""
    subject: Layer | Case = request.param
    config = request.config
    names = [
        item.callspec.params["engine"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and item.callspec.params["measured"] is subject
    ]
    effort = Effort(rounds=config.getoption("rounds"), budget_s=config.getoption("budget"))
    if config.getoption("quick") or config.getoption("benchmark_disable"):
        effort = Effort(rounds=sampling.SLOW_EVERY, budget_s=2)
    builder = network_engines.builder if isinstance(subject, Case) else engines.builder
    return measure(subject, builder(subject), names, core, effort)
