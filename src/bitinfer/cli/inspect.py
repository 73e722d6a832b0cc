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

    from bitinfer.documents.models import Inspect, LayerInfo, Optimised
    from bitinfer.graph import Node, Tensors, Value
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
    _common.add_json(parser, "inspect")


def run(args: argparse.Namespace) -> int:
    """Print the description of a model file."""
    from bitinfer import modelfile

    model = modelfile.load(args.model)
    answer = _describe(args.model, model, with_passes=args.passes)
    if args.json:
        _common.print_json(answer)
    else:
        show([[(line, "")] for line in _as_text(answer)])
    return 0


def _describe(path: str, model: Model, *, with_passes: bool) -> Inspect:
    import msgspec

    from bitinfer.documents import SCHEMA_VERSION, models
    from bitinfer.modelfile import FORMAT_VERSION

    graph = model.graph
    checked = model.checked
    layers = tuple(
        models.LayerInfo(**_describe_layer(node, checked.values, checked.tensors))
        for node in graph.nodes
    )
    parameters = sum(layer.parameters for layer in layers)
    return models.Inspect(
        schema_version=SCHEMA_VERSION,
        path=path,
        sha256=_common.file_sha256(path),
        checksum=model.sha256,
        format_version=FORMAT_VERSION,
        name=graph.name,
        input=models.NamedShape(name=graph.input.name, shape=graph.input.shape),
        outputs=tuple(
            models.NamedShape(name=name, shape=checked.values[name].shape) for name in graph.outputs
        ),
        layers=layers,
        parameters=parameters,
        operations=sum(layer.operations for layer in layers),
        binary_operations=sum(layer.operations for layer in layers if layer.weight_bits == 1),
        file_bytes=Path(path).stat().st_size,
        float32_bytes=4 * parameters,
        arena_bytes=_arena_bytes(model),
        input_range=_input_range(model),
        takes_floats=graph.input.kind == "float",
        preprocessing=model.preprocessing,
        labels=model.labels,
        provenance=model.provenance,
        optimised=_describe_passes(model) if with_passes else msgspec.UNSET,
    )


def _arena_bytes(model: Model) -> int:
    """Return the bytes of all values between input and outputs; kernels may add scratch."""
    from bitinfer.graph import passes
    from bitinfer.plan import lower, share_joins
    from bitinfer.plan.cost import place_buffers

    return place_buffers(share_joins(lower(passes.optimise(model.checked))))[1]


def _describe_layer(node: Node, values: Values, tensors: Tensors) -> dict[str, Any]:
    """Return the fields of documents.models.LayerInfo."""
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
        "op": node.operation,
        "output_shape": value.shape,
        "kind": value.kind,
        "weight_bits": bits,
        "parameters": parameters,
        "operations": operations(node, values, tensors),
    }


def _describe_passes(model: Model) -> Optimised:
    """Run the passes one after the other; return what each left, and the layers at the end."""
    from bitinfer.documents import models
    from bitinfer.graph import passes

    checked = model.checked
    counts = []
    for function in passes.PASSES:
        before, checked = len(checked.graph.nodes), function(checked)
        after = len(checked.graph.nodes)
        counts.append(models.PassInfo(name=function.__name__, before=before, after=after))
    layers = tuple(
        models.FusedLayerInfo(
            **_describe_layer(node, checked.values, checked.tensors),
            epilogue=tuple(_describe_epilogue(node)),
        )
        for node in checked.graph.nodes
    )
    return models.Optimised(passes=tuple(counts), layers=layers)


def _describe_epilogue(node: Node) -> list[str]:
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


def _as_text(answer: Inspect) -> list[str]:
    outputs = ", ".join(f"{printable(o.name, _NAME)} {_shape(o.shape)}" for o in answer.outputs)
    lines = [
        f"file           {printable(answer.path)}, format {answer.format_version}",
        f"sha256         {answer.sha256}",
        f"checksum       {answer.checksum} (matches)",
        f"network        {printable(answer.name)}",
        f"input          {printable(answer.input.name, _NAME)} {_shape(answer.input.shape)}",
        f"output         {outputs}",
        "",
    ]
    head = ("layer", "operation", "output", "kind", "bits", "parameters", "operations")
    rows: list[tuple[str, ...]] = [head]
    rows += [
        (*_cells(layer), f"{layer.parameters:,}", f"{layer.operations:,}")
        for layer in answer.layers
    ]
    total, file_bytes = answer.operations, answer.file_bytes
    rows.append(("total", "", "", "", "", f"{answer.parameters:,}", f"{total:,}"))
    lines += table(rows, right=frozenset((4, 5, 6)))
    float_bytes = answer.float32_bytes
    smaller = f", {float_bytes / file_bytes:.1f} times as much" if float_bytes else ""
    lines += [
        "",
        f"size           {file_bytes:,} bytes; the parameters in float32: {float_bytes:,}{smaller}",
        f"arena          {answer.arena_bytes:,} bytes hold the values between the layers",
        f"binary         {100 * answer.binary_operations / total:.1f} % of the operations",
        f"takes          {_takes(answer)}",
        f"preprocessing  {preprocessing(answer.preprocessing)}",
        f"labels         {_labels(answer.labels)}",
    ]
    lines += _provenance(answer.provenance)
    if answer.optimised:
        lines += _optimised_as_text(answer.optimised)
    return lines


def _optimised_as_text(optimised: Optimised) -> list[str]:
    lines = ["", "passes         nodes before and after"]
    lines += [f"  {done.name:<22}{done.before:>5} -> {done.after}" for done in optimised.passes]
    rows: list[tuple[str, ...]] = [("layer", "operation", "output", "kind", "bits", "then")]
    rows += [
        (*_cells(layer), printable(", ".join(layer.epilogue), 3 * _NAME))
        for layer in optimised.layers
    ]
    return [*lines, "", *table(rows, right=frozenset((4,)))]


def _cells(layer: LayerInfo) -> tuple[str, ...]:
    """Return what both tables of layers begin with."""
    return (
        printable(layer.name, _NAME),
        layer.op,
        _shape(layer.output_shape),
        layer.kind,
        str(layer.weight_bits or "-"),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _takes(answer: Inspect) -> str:
    """Say what a caller may give to the network."""
    shape = answer.input.shape
    kinds = []
    p = answer.preprocessing
    if p is not None:
        colours = {"rgb": "in colour", "bgr": "in colour", "grey": "in grey"}[p.color]
        size = "any size"
        if p.resize is None:
            size = f"at least {shape[1]}x{shape[0]}" if p.crop else f"{shape[1]}x{shape[0]} only"
        kinds.append(f"pictures ({size}), seen {colours}")
        order = f", {p.color}" if len(shape) == 3 and shape[2] == 3 else ""
        kinds.append(f"uint8 {_shape(shape)} (pixels 0 to 255{order})")
    elif answer.input_range == (0.0, 255.0):
        kinds.append(f"uint8 {_shape(shape)} (0 to 255)")
    if answer.takes_floats:
        found = answer.input_range
        described = f" (pixels are {found[0]:.4g} to {found[1]:.4g})" if found else ""
        kinds.append(f"float32 {_shape(shape)}{described}")
    return "; ".join(kinds)


def _input_range(model: Model) -> tuple[float, float] | None:
    """Return what the darkest and the lightest pixel become, over all channels; None if unknown."""
    import numpy as np

    from bitinfer import numerics

    if model.graph.input.kind == "uint8":
        return 0.0, 255.0
    p = model.preprocessing
    if p is None:
        return None
    values = numerics.normalization_table(p.scale, p.mean, p.std)
    if p.mean_image is not None:
        image = model.tensors[p.mean_image]
        ends = np.array([0, 255], np.uint8)[:, None, None, None]
        values = numerics.subtract_mean_image(ends, image, p.scale, p.mean, p.std)
    return float(values.min()), float(values.max())


def preprocessing(p: Preprocessing | None) -> str:
    """Say how a picture becomes the input."""
    if p is None:
        return "none: takes arrays, not pictures"
    steps: list[str] = [p.color]
    if p.ground != "black":
        steps.append(f"transparency on {p.ground}")
    if isinstance(p.resize, int):
        steps.append(f"shorter side to {p.resize} ({p.interpolation})")
    elif p.resize is not None:
        steps.append(f"resize to {p.resize[1]}x{p.resize[0]} ({p.interpolation})")
    if p.crop is not None:
        steps.append(f"centre crop {p.crop[1]}x{p.crop[0]}")
    if p.invert:
        steps.append("dark and light exchanged")
    mean = ", ".join(f"{v:.6g}" for v in p.mean)
    std = ", ".join(f"{v:.6g}" for v in p.std)
    pixel = "pixel" if p.mean_image is None else "(pixel - mean image)"
    steps.append(f"({pixel} * {p.scale:.6g} - [{mean}]) / [{std}]")
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
