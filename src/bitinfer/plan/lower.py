"""Graph -> plan: names become buffers, nodes become steps.  Knows no CPU."""

from __future__ import annotations

from typing import Any

from bitinfer import numerics
from bitinfer.bits import Floats
from bitinfer.graph import nodes
from bitinfer.graph.nodes import Graph, Node
from bitinfer.graph.shapes import Tensors, infer
from bitinfer.plan import steps
from bitinfer.plan.steps import Buffer, Plan, Step, Window


def lower(graph: Graph, tensors: Tensors, pixel_table: Floats | None = None) -> Plan:
    """Return the plan of one sample.

    ``pixel_table`` (256, C), if given, makes the input pixels (uint8) instead of float, normalised
    through the table (numerics.normalization_table).

    Raises:
        GraphError, ShapeError: the graph and its tensors do not fit together.
    """
    values = infer(graph, tensors)
    buffers: list[Buffer] = []
    plan_steps: list[Step] = []
    places: dict[str, int] = {}

    def new_buffer(kind: steps.BufferKind, shape: tuple[int, ...]) -> int:
        buffers.append(Buffer(kind, shape))
        return len(buffers) - 1

    first = new_buffer("float" if pixel_table is None else "pixels", graph.input.shape)
    places[graph.input.name] = first
    if pixel_table is not None:
        target = new_buffer("float", graph.input.shape)
        plan_steps.append(
            steps.Normalize(name="normalize", source=first, target=target, table=pixel_table)
        )
        places[graph.input.name] = target
    for node in graph.nodes:
        value = values[node.name]
        target = new_buffer("bits" if value.kind == "sign" else "float", value.shape)
        plan_steps.append(_step(node, places, target, tensors))
        places[node.name] = target
    return Plan(
        buffers=tuple(buffers),
        steps=tuple(plan_steps),
        input=first,
        outputs=tuple(places[name] for name in graph.outputs),
        output_names=graph.outputs,
    )


def _step(node: Node, places: dict[str, int], target: int, tensors: Tensors) -> Step:
    def tensor(name: str | None) -> Any:
        return None if name is None else tensors[name]

    def place(name: str | None) -> int | None:
        return None if name is None else places[name]

    common: dict[str, Any] = {"name": node.name, "source": places[node.input], "target": target}
    match node:
        case nodes.BinaryConv2d():
            return steps.BinaryConv2d(
                **common,
                window=_conv_window(node, tensors),
                weight=tensor(node.weight),
                pad_value=node.pad_value,
                alpha=tensor(node.alpha),
                bias=tensor(node.bias),
                beta=place(node.beta),
            )
        case nodes.BinaryDense():
            return steps.BinaryDense(
                **common,
                weight=tensor(node.weight),
                alpha=tensor(node.alpha),
                bias=tensor(node.bias),
                beta=place(node.beta),
            )
        case nodes.Conv2d():
            return steps.Conv2d(
                **common,
                window=_conv_window(node, tensors),
                weight=tensor(node.weight),
                bias=tensor(node.bias),
            )
        case nodes.Dense():
            return steps.Dense(**common, weight=tensor(node.weight), bias=tensor(node.bias))
        case nodes.BetaMap():
            window = Window(node.kernel, node.stride, node.padding, node.dilation, node.groups)
            return steps.BetaMap(**common, window=window)
        case nodes.Sign():
            return steps.PackSigns(**common)
        case nodes.BatchNorm():
            scale, shift = numerics.batch_norm_affine(
                tensor(node.mean),
                tensor(node.variance),
                tensor(node.gamma),
                tensor(node.beta),
                node.epsilon,
            )
            return steps.Affine(**common, scale=scale, shift=shift)
        case nodes.Relu():
            return steps.Relu(**common)
        case nodes.MaxPool2d():
            return steps.MaxPool2d(**common, window=Window(node.kernel, node.stride, node.padding))
        case nodes.AvgPool2d():
            return steps.AvgPool2d(
                **common,
                window=Window(node.kernel, node.stride, node.padding),
                count_include_pad=node.count_include_pad,
            )
        case nodes.Flatten():
            return steps.Flatten(**common, channels_first=node.order == "channels_first")
        case nodes.Softmax():
            return steps.Softmax(**common)


def _conv_window(node: nodes.Conv2d | nodes.BinaryConv2d, tensors: Tensors) -> Window:
    _, kh, kw, _ = tensors[node.weight].shape
    return Window((int(kh), int(kw)), node.stride, node.padding, node.dilation, node.groups)
