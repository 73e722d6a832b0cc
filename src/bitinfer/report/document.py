"""The report as a list of blocks: what Markdown and HTML have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bitinfer.report import against_int8, analysis, charts
from bitinfer.report.analysis import Speedup, significant
from bitinfer.report.blocks import Block, Chart, Heading, Paragraph, Table
from bitinfer.report.records import Row, Run
from bitinfer.report.samples import MIN_CLEAN

TITLE = "Speed of binary layers"

_ABOUT = (
    "Written by 'bitinfer report' from the files named below, which 'pytest bench' wrote. Batch 1, "
    "one thread. The engines of a layer were sampled in turn; each result was checked before.",
    "Times are the minimum and the median over the clean samples. A sample is clean if probes just "
    "before and after it saw the core's full vector throughput, or what the engine's own work "
    "always leaves of it, and the same clock, and if the process ran all the time. "
    f"With fewer than {MIN_CLEAN} clean samples, figures are of all "
    "samples, marked with '?', and no speedup is claimed. MAC/cycle is from the minimum and the "
    "clock around it; multiplications with padding count.",
    "bitinfer takes and returns float32 maps and packs signs itself; bitinfer-bits takes and "
    "returns packed signs; bitinfer-shortcut takes packed signs, adds a float map, and returns "
    "floats behind an RPReLU and their packed signs. The others take and return float32 maps, some "
    "forms of int8 bytes.",
)


def build(runs: Sequence[Run]) -> list[Block]:
    """Return the report on all runs; figures of different runs are never compared."""
    blocks: list[Block] = [Heading(1, TITLE), *map(Paragraph, _ABOUT)]
    for run in runs:
        blocks += _run(run)
    return blocks + against_int8.build(runs)


_SUITES = (
    analysis.LAYERS,
    analysis.NARROW,
    analysis.CHANNELS,
    analysis.KERNELS,
    analysis.NETWORKS,
)


def _run(run: Run) -> list[Block]:
    blocks: list[Block] = [Heading(2, run.name), _conditions(run)]
    blocks += [Paragraph(text, is_warning=True) for text in analysis.warnings(run)]
    layers = run.rows.get(analysis.LAYERS)
    if layers:
        blocks += [*_times(layers), *_speedups(layers), *_roofline(run, layers)]
        blocks += _paper(layers)
    if analysis.NARROW in run.rows:
        blocks += _narrow(run.rows[analysis.NARROW])
    blocks += _figure4(run)
    if analysis.NETWORKS in run.rows:
        blocks += _networks(run.rows[analysis.NETWORKS])
    for suite in _SUITES:
        if suite in run.rows:
            blocks += [
                Heading(3, f"Samples: {suite}"),
                Paragraph(
                    "Clean samples of all; how much longer than the minimum nine of ten took."
                ),
                _matrix(run.rows[suite], _samples),
            ]
    return [*blocks, Heading(3, "Engines"), _engines(run)]


def _conditions(run: Run) -> Table:
    rows = run.all_rows()
    clocks = [row.summary.ghz for row in rows if row.summary.ghz is not None]
    ends = dict.fromkeys(f"{clock:.2f}" for clock in (min(clocks), max(clocks))) if clocks else ()
    clock = f"{' to '.join(ends)} GHz, measured" if ends else ""
    facts = {
        "date": [run.date],
        "CPU": [row.info.cpu for row in rows],
        "clock": [clock],
        "kernels": [row.info.backend for row in rows if row.engine == analysis.OURS],
        "compiler": [row.info.compiler for row in rows],
        "commit": [row.info.commit for row in rows],
        "probes": [row.info.probe for row in rows],
    }
    return Table(
        ("", ""), tuple((name, _distinct(values) or "not known") for name, values in facts.items())
    )


def _distinct(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _times(layers: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    return [
        Heading(3, "Times"),
        Paragraph("Milliseconds, minimum and median; below, MAC/cycle."),
        _matrix(layers, _time),
        _matrix(layers, _throughput),
        Chart(charts.throughput(layers)),
    ]


def _narrow(layers: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    """Many layers and few engines: a row for each layer."""
    names = analysis.engine_names(layers)
    ours = (analysis.OURS_BITS, analysis.OURS_SHORTCUT)
    rows = []
    for layer, engines in layers.items():
        best = analysis.fastest(engines, "int8")
        rows.append(
            (
                f"{layer}: {_any(engines).info.shape}",
                *(_throughput(engines[name]) if name in engines else "" for name in names),
                *(_named(analysis.speedup(engines, best, name)) for name in ours),
            )
        )
    against = tuple(f"{name} against the fastest int8" for name in ours)
    return [
        Heading(3, "Narrow layers"),
        Paragraph("MAC/cycle, and ratios of the minima."),
        Table(("layer", *names, *against), tuple(rows)),
    ]


def _networks(networks: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    rows = []
    for network, engines in networks.items():
        cells = [
            _named(analysis.speedup(engines, analysis.fastest(engines, kind), ours))
            for ours in analysis.OURS_NETWORKS
            for kind in ("fp32", "int8")
        ]
        rows.append((network, *cells))
    header = tuple(
        f"{ours} against the fastest {kind}"
        for ours in analysis.OURS_NETWORKS
        for kind in ("fp32", "int8")
    )
    return [
        Heading(3, "Whole networks"),
        Paragraph(
            "Milliseconds, minimum and median. The float and int8 engines run the same topology in "
            "float and int8; bitinfer-integer is bitinfer with integer first and last layers, the "
            "first of 16-bit weights, bitinfer-integer8 with 8-bit weights in both."
        ),
        _matrix(networks, _time),
        Paragraph("Ratio of the minima, with the ratio of the medians."),
        Table(("network", *header), tuple(rows)),
        Chart(charts.speedups(networks, "Speedup of bitinfer, whole networks")),
    ]


def _matrix(layers: Mapping[str, Mapping[str, Row]], cell: Callable[[Row], str]) -> Table:
    """Lay out engines by layers, or networks: of those there are more, and none may be far off."""
    return Table(
        ("engine", *(f"{layer}: {_any(engines).info.shape}" for layer, engines in layers.items())),
        tuple(
            (
                name,
                *(cell(engines[name]) if name in engines else "" for engines in layers.values()),
            )
            for name in analysis.engine_names(layers)
        ),
    )


def _any(engines: Mapping[str, Row]) -> Row:
    return next(iter(engines.values()))


def _time(row: Row) -> str:
    low, middle = (significant(1000 * s) for s in (row.summary.minimum_s, row.summary.median_s))
    return f"{low} / {middle}{_mark(row)}"


def _throughput(row: Row) -> str:
    value = row.summary.mac_per_cycle
    return "" if value is None else significant(value) + _mark(row)


def _samples(row: Row) -> str:
    return f"{row.summary.clean}/{row.summary.count}, +{row.summary.spread:.0%}"


def _mark(row: Row) -> str:
    return "" if row.summary.is_claimable else " ?"


def _speedups(layers: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    if not any(analysis.OURS in engines for engines in layers.values()):
        return []
    names = analysis.engine_names(layers)
    kinds = ("fp32", "int8", "binary")
    best = tuple(
        (
            layer,
            *(_named(analysis.speedup(engines, analysis.fastest(engines, kind))) for kind in kinds),
        )
        for layer, engines in layers.items()
    )
    each = tuple(
        (
            name,
            *(
                _by_minimum(analysis.speedup(engines, engines.get(name)))
                for engines in layers.values()
            ),
        )
        for name in names
        if any(name in analysis.rivals(names, kind) for kind in kinds)
    )
    return [
        Heading(3, "Speedup of bitinfer, float32 in and out"),
        Paragraph(
            "Ratio of the minima. Against the fastest float, int8 and binary engine of each layer, "
            "with the ratio of the medians; then against each."
        ),
        Table(("layer", *(f"fastest {kind}" for kind in kinds)), best),
        Table(("engine", *layers), each),
        Chart(charts.speedups(layers)),
    ]


def _by_minimum(speedup: Speedup | None) -> str:
    if speedup is None:
        return ""
    return "not claimed" if speedup.refusal else f"{significant(speedup.by_minimum)}x"


def _named(speedup: Speedup | None) -> str:
    if speedup is None:
        return ""
    if speedup.refusal:
        return "not claimed"
    ratios = f"{significant(speedup.by_minimum)}x, medians {significant(speedup.by_median)}x"
    return f"{ratios} ({speedup.rival.engine})"


def _roofline(run: Run, layers: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    bounds = analysis.bounds(run)
    bandwidth = analysis.read_bytes_per_cycle(run)
    ours = [
        engines[name]
        for name in (analysis.OURS, analysis.OURS_BITS)
        for engines in layers.values()
        if name in engines and engines[name].summary.mac_per_cycle is not None
    ]
    if not ours:
        return []
    texts = [f"{bound.mac_per_cycle:.0f} MAC/cycle: {bound.text}." for bound in bounds]
    roof = (
        ""
        if bandwidth is None
        else (
            " The slope is the read bandwidth of a buffer of 2 MiB in C, measured: "
            f"{bandwidth:.1f} bytes a cycle."
        )
    )
    rows = []
    for row in ours:
        value = row.summary.mac_per_cycle or 0.0
        shares = (f"{value / bound.mac_per_cycle:.0%}{_mark(row)}" for bound in bounds)
        intensity = significant(analysis.mac_per_byte(row))
        rows.append((f"{row.layer} {row.engine}", intensity, _throughput(row), *shares))
    header = ("row", "MAC/byte", "MAC/cycle", *(f"of {b.mac_per_cycle:.0f}" for b in bounds))
    return [
        Heading(3, "Roofline"),
        Paragraph(
            "The bounds are counted by hand from instructions per cycle, not measured: "
            + " ".join(texts)
            + " Bytes are those that must move: every input, weight and output "
            "element once, weights as bits." + roof
        ),
        Table(header, tuple(rows)),
        Chart(charts.roofline(ours, bounds, bandwidth)),
    ]


def _paper(layers: Mapping[str, Mapping[str, Row]]) -> list[Block]:
    engines = layers.get(analysis.PAPER_LAYER, {})
    if analysis.OURS not in engines:
        return []
    return [
        Heading(3, "The 58x of the XNOR-Net paper"),
        Paragraph(
            "The paper (Rastegari et al. 2016, section 4.1) reports that a convolution of 256 "
            "channels, 14x14, with 3x3 windows runs 58 times as fast in binary as in float, memory "
            "allocation and access excluded, against a plain implementation. Here, the same layer "
            f"({analysis.PAPER_LAYER}), nothing excluded: "
            f"{_claim(engines, engines.get(analysis.NAIVE), 'naive C')}. "
            "Nobody runs convolutions that way, so what counts is this: "
            f"{_claim(engines, analysis.fastest(engines, 'fp32'), 'the fastest float engine')}."
        ),
    ]


def _claim(engines: Mapping[str, Row], rival: Row | None, words: str) -> str:
    speedup = analysis.speedup(engines, rival)
    if speedup is None:
        return f"{words} was not measured"
    what = f"{words} ({speedup.rival.engine})"
    if speedup.refusal:
        return f"no claim against {what}, because only {speedup.refusal}"
    return (
        f"{significant(speedup.by_minimum)} times as fast as {what} by the minima, "
        f"{significant(speedup.by_median)} times by the medians"
    )


def _figure4(run: Run) -> list[Block]:
    suites = [s for s in (analysis.CHANNELS, analysis.KERNELS) if s in run.rows]
    if not suites:
        return []
    blocks: list[Block] = [
        Heading(3, "Figure 4 of the XNOR-Net paper"),
        Paragraph(
            "Speedup of bitinfer, float32 in and out, on 14x14 maps with 256 outputs: against the "
            "number of channels c with 3x3 windows, and against the window size with 256 channels. "
            "The paper's formula, 64 c N / (c N + 64) with N taps, counts 64 binary operations or "
            "one float operation an instruction; real float engines do far more than one."
        ),
    ]
    for suite in suites:
        rows = []
        for engines in run.rows[suite].values():
            info = _any(engines).info
            x = info.channels if suite == analysis.CHANNELS else info.kernel_size
            rows.append(
                (
                    str(x),
                    _by_minimum(analysis.speedup(engines, engines.get(analysis.NAIVE))),
                    _named(analysis.speedup(engines, analysis.fastest(engines, "fp32"))),
                    f"{analysis.paper_formula(info.channels, info.kernel_size):.1f}x",
                )
            )
        first = "channels" if suite == analysis.CHANNELS else "window size"
        header = (first, "against naive C", "against the fastest fp32", "formula")
        blocks += [Table(header, tuple(rows)), Chart(charts.figure4(run.rows[suite], suite))]
    return blocks


def _engines(run: Run) -> Table:
    """Say what each engine is, in all forms that were chosen."""
    rows: dict[str, list[Row]] = {}
    for row in run.all_rows():
        rows.setdefault(row.engine, []).append(row)
    return Table(
        ("engine", "version", "forms", "kernels"),
        tuple(
            (
                name,
                _distinct([row.info.version for row in members]),
                _distinct([row.info.form for row in members]),
                _distinct([row.info.kernel for row in members]),
            )
            for name, members in rows.items()
        ),
    )
