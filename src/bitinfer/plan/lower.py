"""Graph -> plan: names become buffers, nodes become steps.  Knows no CPU."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from bitinfer.bits import Floats
from bitinfer.graph import CheckedGraph, nodes
from bitinfer.graph.nodes import Graph, Node, further_inputs, node_inputs, node_values
from bitinfer.plan import steps
from bitinfer.plan.steps import Activation, Buffer, BufferKind, Epilogue, Plan, Step, Window

_KINDS: dict[str, BufferKind] = {
    "float": "float",
    "sign": "bits",
    "uint8": "pixels",
    "int8": "int8",
}


_LOWERED = (
    *get_args(nodes.Layer),
    nodes.ActivationNode,
    nodes.AvgPool2d,
    nodes.BatchNorm,
    nodes.BetaMap,
    nodes.Concat,
    nodes.Flatten,
    nodes.MaxPool2d,
    nodes.Reshape,
    nodes.Sign,
    nodes.SliceChannels,
)
"""The nodes that become steps of another form; all others become :class:`steps.NodeStep`."""


def operations() -> tuple[str, ...]:
    """Return the names of all operations that steps have, sorted."""
    plain = (kind for kind in nodes.CLASSES if not issubclass(kind, _LOWERED))
    kinds = (kind for kind in steps.step_classes() if kind is not steps.NodeStep)
    return tuple(
        sorted({k.operation for k in kinds} | {str(k.__struct_config__.tag) for k in plain})
    )


def lower(checked: CheckedGraph, pixel_table: Floats | None = None) -> Plan:
    """Return the plan of one sample of a graph that is known to be right.

    ``pixel_table`` (256, C), if given, makes the input pixels (uint8) instead of float, normalised
    through the table (numerics.normalization_table): by the first layer itself, where only float
    convolutions read the input.
    """
    graph, lowering = checked.graph, _Lowering(checked)
    first = lowering.add_input(graph, pixel_table)
    for node in graph.nodes:
        lowering.add(node)
    return Plan(
        buffers=tuple(lowering.buffers),
        steps=tuple(lowering.steps),
        input=first,
        outputs=tuple(lowering.places[name] for name in graph.outputs),
        output_names=graph.outputs,
        values=lowering.places,
    )


class _Lowering:
    """A plan under construction; ``places`` says which buffer holds which value."""

    def __init__(self, checked: CheckedGraph) -> None:
        self.values = checked.values
        self.tensors = checked.tensors
        self.buffers: list[Buffer] = []
        self.steps: list[Step] = []
        self.places: dict[str, int] = {}
        self.table: Floats | None = None

    def new_buffer(self, kind: BufferKind, shape: tuple[int, ...]) -> int:
        self.buffers.append(Buffer(kind, shape))
        return len(self.buffers) - 1

    def add_input(self, graph: Graph, pixel_table: Floats | None) -> int:
        name, shape = graph.input.name, graph.input.shape
        if pixel_table is None:
            self.places[name] = self.new_buffer(_KINDS[graph.input.kind], shape)
            return self.places[name]
        first = self.places[name] = self.new_buffer("pixels", shape)
        readers = [node for node in graph.nodes if name in node_inputs(node)]
        if all(isinstance(n, nodes.Conv2d) and n.input == name for n in readers):
            self.table = pixel_table
        else:
            target = self.places[name] = self.new_buffer("float", shape)
            self.steps.append(
                steps.Normalize(name="normalize", source=first, target=target, table=pixel_table)
            )
        return first

    def add(self, node: Node) -> None:
        for name in node_values(node):
            value = self.values[name]
            self.places[name] = self.new_buffer(_KINDS[value.kind], value.shape)
        common: dict[str, Any] = {
            "name": node.name,
            "source": self.places[node.input],
            "target": self.places[node.name],
        }
        if isinstance(node, nodes.Layer):
            self.steps.append(self.layer(node, common))
        elif isinstance(node, nodes.Concat):
            self.concat(node, common)
        elif isinstance(node, nodes.ActivationNode):
            activation = self.activation(node.activation())
            self.steps.append(steps.Activate(**common, activation=activation))
        elif isinstance(node, _LOWERED):
            self.steps.append(self.step(node, common))
        else:
            others = {f: self.places[name] for f, name in further_inputs(node).items()}
            self.steps.append(steps.NodeStep(**common, node=node, others=others))

    def tensor(self, name: str | None) -> Any:
        return None if name is None else self.tensors[name]

    def flags(self, name: str | None) -> Any:
        return None if name is None else self.tensors[name].astype(np.bool_)

    def place(self, name: str | None) -> int | None:
        return None if name is None else self.places[name]

    def layer(self, node: nodes.Layer, common: dict[str, Any]) -> Step:
        common |= {"epilogue": self.epilogue(node), "weight": self.tensor(node.weight)}
        match node:
            case nodes.BinaryConv2d():
                window = self.window(node)
                return steps.BinaryConv2d(**common, window=window, pad_value=node.pad_value)
            case nodes.BinaryDense():
                return steps.BinaryDense(**common)
            case nodes.Dense():
                return steps.Dense(**common)
            case nodes.Conv2d():
                is_pixels = self.buffers[common["source"]].kind == "pixels"
                return steps.Conv2d(
                    **common,
                    window=self.window(node),
                    table=self.table if is_pixels else None,
                    offset=self.tensor(node.offset),
                )

    def window(self, node: nodes.Conv2d | nodes.BinaryConv2d) -> Window:
        _, kh, kw, _ = self.tensors[node.weight].shape
        return Window((int(kh), int(kw)), node.stride, node.padding, node.dilation, node.groups)

    def epilogue(self, node: nodes.Layer) -> Epilogue:
        beta = node.beta if isinstance(node, nodes.BinaryLayer) else None
        e = nodes.Epilogue() if node.epilogue is None else node.epilogue
        threshold = self.tensor(e.threshold)
        is_integer = threshold is not None and threshold.dtype == np.int32
        return Epilogue(
            alpha=self.tensor(node.alpha),
            bias=self.tensor(node.bias),
            beta=self.place(beta),
            floor=self.tensor(e.floor),
            residual=self.place(e.residual),
            activation=None if e.activation is None else self.activation(e.activation),
            threshold=threshold if is_integer else None,
            sign_threshold=None if is_integer else threshold,
            flip=self.flags(e.flip),
            signs=self.place(e.signs),
        )

    def activation(self, a: nodes.Activation) -> Activation:
        return Activation(
            a.kind,
            shift_in=self.tensor(a.shift_in),
            slope=self.tensor(a.slope),
            shift_out=self.tensor(a.shift_out),
            low=a.low,
            high=a.high,
        )

    def concat(self, node: nodes.Concat, common: dict[str, Any]) -> None:
        to = 0
        for name in node_inputs(node):
            source = self.places[name]
            count = self.values[name].shape[-1]
            self.steps.append(
                steps.CopyChannels(**common | {"source": source}, begin=0, to=to, count=count)
            )
            to += count

    def step(self, node: Node, common: dict[str, Any]) -> Step:
        match node:
            case nodes.BetaMap():
                window = Window(node.kernel, node.stride, node.padding, node.dilation, node.groups)
                return steps.BetaMap(**common, window=window)
            case nodes.Sign():
                threshold, flip = self.tensor(node.threshold), self.flags(node.flip)
                return steps.PackSigns(**common, threshold=threshold, flip=flip)
            case nodes.BatchNorm():
                return steps.Affine(**common, norm=node.norm(self.tensors))
            case nodes.SliceChannels():
                count = node.end - node.begin
                return steps.CopyChannels(**common, begin=node.begin, to=0, count=count)
            case nodes.MaxPool2d():
                window = Window(node.kernel, node.stride, node.padding)
                return steps.MaxPool2d(**common, window=window, minimum=self.flags(node.minimum))
            case nodes.AvgPool2d():
                return steps.AvgPool2d(
                    **common,
                    window=Window(node.kernel, node.stride, node.padding),
                    count_include_pad=node.count_include_pad,
                )
            case nodes.Flatten():
                source = self.values[node.input]
                # Floats of one channel have the same order either way, and need no transposition.
                is_first = node.order == "channels_first" and (
                    source.kind != "float" or source.shape[-1] > 1
                )
                return steps.Flatten(**common, channels_first=is_first)
            case nodes.Reshape():
                return steps.Flatten(**common, channels_first=False)
            case _:
                raise AssertionError(f"no step for {type(node).__name__}")
