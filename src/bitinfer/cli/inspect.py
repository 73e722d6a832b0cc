"""``bitinfer inspect``: shows what a model file holds.  Runs nothing and needs no kernel."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import printable, show, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bitinfer.graph import Node, Value
    from bitinfer.graph.checks import Tensors
    from bitinfer.model import Model, Preprocessing, Provenance

    Values = Mapping[str, Value]

_LABELS_SHOWN = 10
_NAME = 40


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what a model file holds",
        description="Show the layers, size, preprocessing, labels, origin and checksum of a model "
        "file. The file is checked as for running; nothing is run.",
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument(
        "--passes",
        action="store_true",
        help="also show the network as it is run: what the passes made of its layers at loading",
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the description of a model file."""
    from bitinfer import modelfile

    model = modelfile.load(args.model)
    document = _describe(args.model, model)
    if args.passes:
        document["optimised"] = _describe_passes(model)
    if args.json:
        _common.print_json(document)
    else:
        lines = _as_text(document, model)
        if args.passes:
            lines += _optimised_as_text(document["optimised"])
        show([[(line, "")] for line in lines])
    return 0


def _describe(path: str, model: Model) -> dict[str, Any]:
    import msgspec

    from bitinfer.modelfile import FORMAT_VERSION

    graph = model.graph
    layers = [_describe_layer(node, model.values, model.tensors) for node in graph.nodes]
    parameters = sum(layer["parameters"] for layer in layers)
    operations = sum(layer["operations"] for layer in layers)
    binary = sum(layer["operations"] for layer in layers if layer["weight_bits"] == 1)
    return {
        "schema_version": _common.SCHEMA_VERSION,
        "path": path,
        "sha256": _common.file_sha256(path),
        "checksum": model.sha256,
        "format_version": FORMAT_VERSION,
        "name": graph.name,
        "input": {"name": graph.input.name, "shape": graph.input.shape},
        "outputs": [{"name": n, "shape": model.values[n].shape} for n in graph.outputs],
        "layers": layers,
        "parameters": parameters,
        "operations": operations,
        "binary_operations": binary,
        "file_bytes": Path(path).stat().st_size,
        "float32_bytes": 4 * parameters,
        "arena_bytes": _arena_bytes(model),
        "preprocessing": msgspec.to_builtins(model.preprocessing),
        "labels": list(model.labels),
        "provenance": msgspec.to_builtins(model.provenance),
    }


def _arena_bytes(model: Model) -> int:
    """Return the bytes of all values between input and outputs; kernels may add scratch."""
    from bitinfer.graph import passes
    from bitinfer.plan import lower
    from bitinfer.plan.cost import place_buffers

    return place_buffers(lower(*passes.optimise(model.graph, model.tensors)))[1]


def _describe_layer(node: Node, values: Values, tensors: Tensors) -> dict[str, Any]:
    from bitinfer.graph import operations
    from bitinfer.graph.nodes import Layer, node_tensors

    value = values[node.name]
    names = node_tensors(node)
    parameters = sum(tensors[name].size for name in names)
    bits = 32 if names else None
    if isinstance(node, Layer):
        weight = tensors[node.weight]
        bits = 8 * weight.dtype.itemsize
        if weight.dtype == "uint64":
            # Packed weights are counted in signs, not in words.
            bits = 1
            groups = getattr(node, "groups", 1)
            signs = math.prod(weight.shape[:-1]) * values[node.input].shape[-1] // groups
            parameters += signs - weight.size
    return {
        "name": node.name,
        "op": node.__struct_config__.tag,
        "output_shape": value.shape,
        "kind": value.kind,
        "weight_bits": bits,
        "parameters": parameters,
        "operations": operations(node, values, tensors),
    }


def _describe_passes(model: Model) -> dict[str, Any]:
    """Run the passes one after the other; return what each left, and the layers at the end."""
    from bitinfer.graph import infer, passes

    graph, tensors = model.graph, dict(model.tensors)
    counts = []
    for function in passes.PASSES:
        before = len(graph.nodes)
        graph, tensors = function(graph, tensors)
        counts.append({"name": function.__name__, "before": before, "after": len(graph.nodes)})
    values = infer(graph, tensors)
    layers = []
    for node in graph.nodes:
        layer = _describe_layer(node, values, tensors)
        layers.append(layer | {"epilogue": _describe_epilogue(node, values)})
    return {"passes": counts, "layers": layers}


def _describe_epilogue(node: Node, values: Values) -> list[str]:
    """Say what is fused into a layer, in the order in which it is applied."""
    from bitinfer.graph.nodes import Layer

    if not isinstance(node, Layer):
        return []
    parts = [
        name
        for name in ("alpha", "beta", "bias", "offset")
        if getattr(node, name, None) is not None
    ]
    e = node.epilogue
    if e is None:
        return parts
    if e.floor is not None:
        parts.insert(0, "floor")
    if e.residual is not None:
        parts.append(f"+ {e.residual}")
    if e.activation is not None:
        parts.append(e.activation.kind)
    if e.signs is not None:
        parts.append(f"signs to {e.signs}")
    elif e.threshold is not None:
        parts.append("threshold" if not parts else "signs")
    return parts


def _as_text(document: dict[str, Any], model: Model) -> list[str]:
    shape = _shape(document["input"]["shape"])
    outputs = ", ".join(
        f"{printable(o['name'], _NAME)} {_shape(o['shape'])}" for o in document["outputs"]
    )
    lines = [
        f"file           {printable(document['path'])}, format {document['format_version']}",
        f"sha256         {document['sha256']}",
        f"checksum       {document['checksum']} (matches)",
        f"network        {printable(document['name'])}",
        f"input          {printable(document['input']['name'], _NAME)} {shape}",
        f"output         {outputs}",
        "",
    ]
    head = ("layer", "operation", "output", "kind", "bits", "parameters", "operations")
    rows: list[tuple[str, ...]] = [head]
    rows += [
        (*_cells(layer), f"{layer['parameters']:,}", f"{layer['operations']:,}")
        for layer in document["layers"]
    ]
    total, file_bytes = document["operations"], document["file_bytes"]
    rows.append(("total", "", "", "", "", f"{document['parameters']:,}", f"{total:,}"))
    lines += table(rows, right=frozenset((4, 5, 6)))
    float_bytes = document["float32_bytes"]
    smaller = f", {float_bytes / file_bytes:.1f} times as much" if float_bytes else ""
    lines += [
        "",
        f"size           {file_bytes:,} bytes; the parameters in float32: {float_bytes:,}{smaller}",
        f"arena          {document['arena_bytes']:,} bytes hold the values between the layers",
        f"binary         {100 * document['binary_operations'] / total:.1f} % of the operations",
        f"preprocessing  {_preprocessing(model.preprocessing)}",
        f"labels         {_labels(model.labels)}",
    ]
    return lines + _provenance(model.provenance)


def _optimised_as_text(optimised: dict[str, Any]) -> list[str]:
    lines = ["", "passes         nodes before and after"]
    lines += [
        f"  {done['name']:<22}{done['before']:>5} -> {done['after']}"
        for done in optimised["passes"]
    ]
    rows: list[tuple[str, ...]] = [("layer", "operation", "output", "kind", "bits", "then")]
    rows += [
        (*_cells(layer), printable(", ".join(layer["epilogue"]), 3 * _NAME))
        for layer in optimised["layers"]
    ]
    return [*lines, "", *table(rows, right=frozenset((4,)))]


def _cells(layer: dict[str, Any]) -> tuple[str, ...]:
    """Return what both tables of layers begin with."""
    return (
        printable(layer["name"], _NAME),
        layer["op"],
        _shape(layer["output_shape"]),
        layer["kind"],
        str(layer["weight_bits"] or "-"),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _preprocessing(p: Preprocessing | None) -> str:
    if p is None:
        return "none: takes arrays, not pictures"
    steps: list[str] = [p.color]
    if isinstance(p.resize, int):
        steps.append(f"shorter side to {p.resize} ({p.interpolation})")
    elif p.resize is not None:
        steps.append(f"resize to {p.resize[1]}x{p.resize[0]} ({p.interpolation})")
    if p.crop is not None:
        steps.append(f"centre crop {p.crop[1]}x{p.crop[0]}")
    mean = ", ".join(f"{v:.6g}" for v in p.mean)
    std = ", ".join(f"{v:.6g}" for v in p.std)
    steps.append(f"(pixel * {p.scale:.6g} - [{mean}]) / [{std}]")
    return "; ".join(steps)


def _labels(labels: tuple[str, ...]) -> str:
    if not labels:
        return "none: classes are shown by number"
    shown = ", ".join(printable(label, _NAME) for label in labels[:_LABELS_SHOWN])
    more = ", ..." if len(labels) > _LABELS_SHOWN else ""
    return f"{len(labels)}: {shown}{more}"


def _provenance(provenance: Provenance | None) -> list[str]:
    if provenance is None:
        return ["origin         unknown"]
    lines = [f"origin         {printable(provenance.importer)}"]
    if provenance.source:
        lines.append(f"  source       {printable(provenance.source)}")
    if provenance.source_sha256:
        lines.append(f"  sha256       {printable(provenance.source_sha256)}")
    if provenance.versions:
        versions = ", ".join(f"{k} {v}" for k, v in sorted(provenance.versions.items()))
        lines.append(f"  versions     {printable(versions)}")
    lines += [f"  note         {printable(text)}" for text in provenance.notes]
    return lines
