"""The report counts what became bits, and says when nothing did."""

from __future__ import annotations

from bitinfer.importers.outcome import Became, Finding, LayerOutcome, conversion


def layer(name: str, shape: tuple[int, ...], became: Became = "float") -> LayerOutcome:
    return LayerOutcome(name, "conv2d", shape, 100, became, "because")


def test_bits_of_both_kinds_are_counted() -> None:
    layers = (
        layer("a", (2, 3, 3, 4), "binary"),
        layer("b", (5, 6), "binary weights"),
        layer("c", (7, 8), "integer"),
        layer("d", (9,)),
    )
    report = conversion("net.pth", "a checkpoint", layers)
    assert (report.parameters, report.binary_weights, report.float_bytes) == (400, 72 + 30, 1600)
    assert report.findings == ()


def test_network_without_bits_is_a_finding() -> None:
    report = conversion("net.pth", "a checkpoint", (layer("a", (2, 3)), layer("bn", (3,))))
    (finding,) = report.findings
    assert (finding.kind, finding.count) == ("nothing binary", 1)
    assert str(finding).startswith("1 layers with weights")


def test_finding_reads_as_a_sentence() -> None:
    assert str(Finding("zero weights", 3, "weights of 0")) == "3 weights of 0"
