"""What the rows of a run say: speedups, bounds, and what cannot be claimed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from bitinfer.report.records import Row, Run
from bitinfer.report.samples import MIN_CLEAN

OURS = "bitinfer"
OURS_BITS = "bitinfer-bits"
OURS_SHORTCUT = "bitinfer-shortcut"
OURS_INTEGER = "bitinfer-integer"
OURS_INTEGER8 = "bitinfer-integer8"
OURS_NETWORKS = (OURS, OURS_INTEGER, OURS_INTEGER8)
NAIVE = "naive-c-fp32"
LAYERS = "layers"
NARROW = "narrow"
NETWORKS = "networks"
CHANNELS = "figure4-channels"
KERNELS = "figure4-kernels"
PAPER_LAYER = "R3"
"""256 channels, a 14x14 map, 3x3 windows: what the XNOR-Net paper states 58x for."""

FEW_SAMPLES = 20
WIDE_SPREAD = 0.10
OWN_WORK = 0.97
"""An engine that leaves less of the core's vector throughput behind is named."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """MAC/cycle that a method cannot pass, counted by hand from how a core issues instructions."""

    mac_per_cycle: float
    text: str

    @classmethod
    def of(cls, what: str, instructions: int, macs: int, rate: int) -> Bound:
        """Return the bound of so many instructions for so many MAC, ``rate`` of them a cycle."""
        text = f"{what}: {instructions} instructions for {macs} MAC, {rate} a cycle"
        return cls(rate * macs / instructions, text)


_EVERYWHERE = (
    ("tables of 4-bit groups, AVX2", 16, 1792),
    ("XOR and popcount, AVX-512 VPOPCNTDQ", 3, 512),
)
_OF_METHODS = {
    "lookup6": ("tables of 6-bit groups, AVX-512 VBMI", 12, 3840),
    "bitpairs": ("a bit of two signs, AVX-512 VPOPCNTDQ", 4, 1024),
}
"""Of methods of the binary convolution: what they do, instructions, and MAC."""

_FOUR_WIDE = "AMD EPYC (family 26, "
"""Zen 5's server cores issue four instructions of 512 bits a cycle; all others known here, two."""


@dataclasses.dataclass(frozen=True)
class Speedup:
    """How many times as fast ``ours`` is as ``rival``, by minimum and by median."""

    ours: Row
    rival: Row

    @property
    def by_minimum(self) -> float:
        """Ratio of the minima."""
        return self.rival.summary.minimum_s / self.ours.summary.minimum_s

    @property
    def by_median(self) -> float:
        """Ratio of the medians."""
        return self.rival.summary.median_s / self.ours.summary.median_s

    @property
    def refusal(self) -> str:
        """Why no claim is made; empty if one is."""
        return "; ".join(
            f"{row.summary.clean} of {row.summary.count} samples of {row.engine} are clean"
            for row in (self.ours, self.rival)
            if not row.summary.is_claimable
        )


def significant(value: float) -> str:
    """Write three digits, without exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.4f}"


def engine_names(layers: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Return the engines of a suite: ours, binary ones, int8, float; each as they first appear."""
    names = dict.fromkeys(name for engines in layers.values() for name in engines)
    kinds = [name for kind in ("binary", "int8", "fp32") for name in rivals(names, kind)]
    return [*(name for name in names if name not in kinds), *kinds]


def missing(layers: Mapping[str, Mapping[str, Row]], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the layers at which engines have too few clean samples, by engine."""
    found = {
        name: [
            layer
            for layer, engines in layers.items()
            if name in engines and not engines[name].summary.is_claimable
        ]
        for name in names
    }
    return {name: members for name, members in found.items() if members}


def rivals(names: Iterable[str], kind: str) -> list[str]:
    """Return the engines of a kind: ``fp32``, ``int8`` or ``binary``."""
    return [name for name in names if name.endswith(f"-{kind}")]


def fastest(engines: Mapping[str, Row], kind: str) -> Row | None:
    """Return the engine of a kind with the lowest minimum."""
    rows = [engines[name] for name in rivals(engines, kind)]
    return min(rows, key=lambda row: row.summary.minimum_s, default=None)


def speedup(engines: Mapping[str, Row], rival: Row | None, name: str = OURS) -> Speedup | None:
    """Compare an engine of ours with ``rival``; None where either was not measured."""
    ours = engines.get(name)
    return None if ours is None or rival is None else Speedup(ours, rival)


def paper_formula(channels: float, kernel: float) -> float:
    """Return 64 c N / (c N + 64) with N = kernel^2 taps: the speedup that XNOR-Net expects.

    Rastegari et al. 2016, section 4.1: an instruction does 64 binary operations or one of float.
    """
    work = channels * kernel * kernel
    return 64 * work / (work + 64)


def bounds(run: Run) -> list[Bound]:
    """Return the bounds that concern the kernels of this run, the highest first."""
    ours = [row.info for row in run.all_rows() if row.engine in _OURS]
    wide = 4 if any(info.cpu.startswith(_FOUR_WIDE) for info in ours) else 2
    counts = [
        count
        for method, count in _OF_METHODS.items()
        if any(method in info.kernel.split() for info in ours)
    ]
    counts += _EVERYWHERE
    found = [Bound.of(*count, wide if "AVX-512" in count[0] else 4) for count in counts]
    return sorted(found, key=lambda bound: bound.mac_per_cycle, reverse=True)


_OURS = (OURS, OURS_BITS, OURS_SHORTCUT)


def mac_per_byte(row: Row) -> float:
    """Return MACs per byte that must move: each input, weight and output element once.

    Weights of binary engines are bits; maps are float32, but bits with ``bitinfer-bits``.
    """
    info = row.info
    map_bytes = 1 / 8 if row.engine == OURS_BITS else 4
    maps = (info.input_elements + info.output_elements) * map_bytes
    return info.macs / (maps + info.weight_elements / 8)


def read_bytes_per_cycle(run: Run) -> float | None:
    """Return the core's measured read bandwidth beyond its own caches; None if not known."""
    rates = [
        row.info.read_bytes_per_ns / row.summary.ghz
        for row in run.all_rows()
        if row.info.read_bytes_per_ns is not None and row.summary.ghz is not None
    ]
    return max(rates, default=None)


def warnings(run: Run) -> list[str]:
    """Return what a reader should know before believing the figures of a run."""
    rows = run.all_rows()
    total = sum(row.summary.count for row in rows)
    clean = sum(row.summary.clean for row in rows)
    result = []
    if clean < total / 2:
        result.append(
            f"The machine was busy: {clean} of {total} samples are clean. Measure again when "
            "nothing else runs."
        )
    groups = {
        f"No claim is made for rows with fewer than {MIN_CLEAN} clean samples": [
            row for row in rows if not row.summary.is_claimable
        ],
        "The own work of these engines leaves less of the core's vector throughput behind it, by "
        "which their samples are judged": [row for row in rows if row.summary.own_share < OWN_WORK],
        "Fewer than half of the samples are clean": [
            row for row in rows if row.summary.is_claimable and row.summary.is_busy
        ],
        f"One clean sample in ten takes more than {WIDE_SPREAD:.0%} longer than the minimum": [
            row for row in rows if row.summary.is_claimable and row.summary.spread > WIDE_SPREAD
        ],
        f"Fewer than {FEW_SAMPLES} samples": [
            row for row in rows if row.summary.count < FEW_SAMPLES and row.engine != NAIVE
        ],
        "The clock is not known, and with it MAC/cycle": [
            row for row in rows if row.summary.ghz is None
        ],
        "The process was not tied to one CPU": [row for row in rows if not row.info.pinned],
        "Measured with more than one thread, or an unknown number": [
            row for row in rows if row.info.threads != 1
        ],
        "Measured with changes that are in no commit": [
            row for row in rows if row.info.commit.endswith("-dirty")
        ],
    }
    result += [f"{text}: {_list(members, rows)}." for text, members in groups.items() if members]
    return result


def _list(members: list[Row], rows: list[Row]) -> str:
    if len(members) == len(rows):
        return "all rows"
    shown = [f"{row.layer} {row.engine}" for row in members[:12]]
    more = f" and {len(members) - len(shown)} more" if len(members) > len(shown) else ""
    return ", ".join(shown) + more
