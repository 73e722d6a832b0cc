"""Where int8 is the better choice, and where binary: by CPU, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bitinfer.report import analysis
from bitinfer.report.analysis import Speedup, significant
from bitinfer.report.blocks import Block, Heading, Paragraph, Table
from bitinfer.report.records import Run

WORTH = 1.05
"""Binary layers cost accuracy: they are the better choice only if they are that much faster."""

_OURS = {
    analysis.NETWORKS: analysis.OURS_NETWORKS,
    analysis.LAYERS: (analysis.OURS,),
    analysis.NARROW: (analysis.OURS_SHORTCUT,),
}
"""What is compared, by suite: whole networks, and layers with floats before or behind them."""

_ABOUT = (
    "int8 costs a network hardly any accuracy and binary layers cost it some, so int8 is the "
    f"better choice wherever bitinfer is not at least {WORTH - 1:.0%} faster. Networks in int8 "
    "have the float topology, as one would use it. The fastest of bitinfer, bitinfer-integer and "
    "bitinfer-integer8 is compared with the fastest int8 engine, by minima of one file."
)

_AMX_BOUND = (
    "AMX multiplies int8 at up to 1,024 MAC/cycle (16 x 16 x 64 in 16 cycles), which is more than "
    "any binary kernel can reach"
)


@dataclasses.dataclass(frozen=True)
class _Comparison:
    suite: str
    speedup: Speedup

    @property
    def name(self) -> str:
        return self.speedup.ours.layer

    @property
    def choice(self) -> str:
        """``binary``, ``int8``, or ``not claimed``."""
        if self.speedup.refusal:
            return "not claimed"
        return "binary" if self.speedup.by_minimum >= WORTH else "int8"

    @property
    def has_amx(self) -> bool:
        """Whether the int8 engine says that it ran on AMX."""
        return "amx" in self.speedup.rival.info.kernel.lower()


def build(runs: Sequence[Run]) -> list[Block]:
    """Return the page; nothing where no int8 engine was measured beside bitinfer."""
    by_cpu: dict[str, list[_Comparison]] = {}
    for run in runs:
        for comparison in _comparisons(run):
            cpu = comparison.speedup.ours.info.cpu or "CPU not known"
            by_cpu.setdefault(cpu, []).append(comparison)
    if not by_cpu:
        return []
    blocks: list[Block] = [Heading(2, "Binary against int8"), Paragraph(_ABOUT)]
    for cpu, found in by_cpu.items():
        blocks += [
            Heading(3, cpu),
            *(Paragraph(text) for text in _verdicts(found)),
            Paragraph(_amx(found)),
            _table(found),
        ]
    return blocks


def _comparisons(run: Run) -> list[_Comparison]:
    found = []
    for suite, candidates in _OURS.items():
        for engines in run.rows.get(suite, {}).values():
            ours = [engines[name] for name in candidates if name in engines]
            rival = analysis.fastest(engines, "int8")
            if ours and rival is not None:
                best = min(ours, key=lambda row: row.summary.minimum_s)
                found.append(_Comparison(suite, Speedup(best, rival)))
    return found


def _verdicts(found: Sequence[_Comparison]) -> list[str]:
    """One sentence on networks and one on layers: which are better in what."""
    texts = []
    for what, suites in (
        ("networks", (analysis.NETWORKS,)),
        ("layers", (analysis.LAYERS, analysis.NARROW)),
    ):
        members = [comparison for comparison in found if comparison.suite in suites]
        parts = [
            f"{words}: {', '.join(names)}"
            for choice, words in (
                ("int8", "int8 is the better choice"),
                ("binary", "binary is faster"),
                ("not claimed", "too few clean samples to tell"),
            )
            if (names := [c.name for c in members if c.choice == choice])
        ]
        if parts:
            texts.append(f"Of the {what}, {'; '.join(parts)}.")
    return texts


def _amx(found: Sequence[_Comparison]) -> str:
    """Say what AMX has to do with it: used, there, absent or not known."""
    used = [comparison.name for comparison in found if comparison.has_amx]
    features = {c.speedup.ours.info.int8_features for c in found}
    if used:
        return (
            f"{_AMX_BOUND}. The fastest int8 engine says that it ran on AMX at: {', '.join(used)}."
        )
    if any("amx" in words for words in features):
        return (
            f"{_AMX_BOUND}. This CPU has AMX, and no int8 engine here says that it used it; of "
            "ONNX Runtime's kernels nothing is known."
        )
    here = "This CPU has no AMX" if any(features) else "Whether this CPU has AMX was not recorded"
    return (
        f"{here}. {_AMX_BOUND}; on a CPU that has it, expect int8 to be the better choice for more "
        "of the rows below, the widest first. These figures do not show that."
    )


def _table(found: Sequence[_Comparison]) -> Table:
    rows = []
    for comparison in found:
        ours, rival = comparison.speedup.ours, comparison.speedup.rival
        ratio = comparison.speedup.by_minimum
        rows.append(
            (
                f"{comparison.name}: {ours.info.shape}",
                f"{significant(1e3 * ours.summary.minimum_s)} ({ours.engine})",
                f"{significant(1e3 * rival.summary.minimum_s)} ({rival.engine})",
                "" if comparison.speedup.refusal else f"{significant(ratio)}x",
                comparison.choice,
            )
        )
    return Table(("", "binary, ms", "int8, ms", "ratio", "better choice"), tuple(rows))
