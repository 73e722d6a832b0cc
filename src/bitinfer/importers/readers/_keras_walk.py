"""From the configuration of a Keras model to a foreign graph, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bitinfer.errors import CheckpointError, ConversionError
from bitinfer.files import one_line
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.readers import _keras_layers
from bitinfer.importers.readers._graph_draft import Array, Shape
from bitinfer.importers.readers._keras_graph import Config, KerasGraph, Layer

MAX_LAYERS = 10_000

_KINDS = ("Sequential", "Functional", "Model", "BinaryDenseNet")
"""Classes of models: the last is Larq Zoo's (literature/densenet.py), and computes nothing else."""


def read(model: Config, weights: Mapping[str, Mapping[str, Array]], is_by_class: bool) -> Foreign:
    """Return the network of a configuration, as ``model.to_json()`` has it.

    ``weights`` are by the names of layers and their own, or by class and position.
    """
    kind, config = model.get("class_name"), model.get("config")
    if isinstance(config, list):
        config = {"layers": config}  # TensorFlow 1
    if kind not in _KINDS or not isinstance(config, dict):
        raise ConversionError(f"a {one_line(kind)}: only Sequential and functional models are read")
    items = config.get("layers")
    if not isinstance(items, list) or not 0 < len(items) <= MAX_LAYERS:
        raise CheckpointError("its configuration lists no layers, or too many")
    layers = [*_layers(items)]
    graph = KerasGraph(weights, is_by_class)
    calls = [*_calls(kind, layers, items)]
    made: dict[tuple[str, int], tuple[str, ...]] = {}
    first = _input_of(layers[0])
    input_name = layers[0].name if layers[0].kind == "InputLayer" else "input"
    graph.shapes[input_name] = first
    count: dict[str, int] = {}
    for layer, sources in calls:
        where = f"{one_line(layer.name)} ({one_line(layer.kind)})"
        number = count.get(layer.name, 0)
        count[layer.name] = number + 1
        if layer.kind == "InputLayer":
            if layer.name != input_name:
                raise ConversionError(f"{where}: a second input, wanted one")
            made[layer.name, 0] = (input_name,)
            continue
        try:
            inputs = tuple(_value(made, source) if source else input_name for source in sources)
            name = layer.name if number == 0 else f"{layer.name}.{number + 1}"
            made[layer.name, number] = _keras_layers.write(graph, layer, name, inputs)
        except (CheckpointError, ConversionError) as error:
            raise type(error)(f"{where}: {error}") from error
        except KeyError as error:
            raise CheckpointError(f"{where}: reads {one_line(error)}, not made before") from error
        except (ValueError, IndexError, TypeError, ArithmeticError) as error:
            raise CheckpointError(f"{where}: {one_line(error)}") from error
    outputs = tuple(_value(made, source) for source in _outputs(config, calls, made))
    return Foreign(
        name=one_line(config.get("name", "keras"), 100),
        layout="NHWC",
        input=input_name,
        input_shape=first,
        nodes=tuple(graph.nodes),
        constants=graph.constants,
        outputs=outputs,
    )


def snake_case(name: str) -> str:
    """Return a class's name as Keras's later layouts write it (saving_lib.py)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _layers(items: list[Any]) -> Iterator[Layer]:
    used: dict[str, int] = {}
    for item in items:
        config = item.get("config") if isinstance(item, dict) else None
        if not isinstance(config, dict) or not isinstance(item.get("class_name"), str):
            raise CheckpointError("its configuration holds a layer without class or config")
        kind = item["class_name"].rpartition(">")[2]
        key = snake_case(kind)
        number = used.get(key, 0)
        used[key] = number + 1
        name = config.get("name", item.get("name"))
        if not isinstance(name, str) or not name:
            raise CheckpointError(f"a layer {one_line(kind)} has no name")
        yield Layer(name, kind, config, f"{key}_{number}" if number else key)


Source = tuple[str, int, int]
"""A value: by its layer, the number of the call, and that of the call's result."""

Call = tuple[Layer, list[Source | None]]
"""A layer, and what it reads; None is the network's input."""


def _value(made: Mapping[tuple[str, int], tuple[str, ...]], source: Source) -> str:
    layer, call, number = source
    values = made[layer, call]
    if not 0 <= number < len(values):
        raise CheckpointError(f"reads result {number} of {one_line(layer)}, it has {len(values)}")
    return values[number]


def _calls(kind: str, layers: list[Layer], items: list[Any]) -> Iterator[Call]:
    """Return what is computed, in an order in which everything is there before it is read."""
    if kind == "Sequential":
        before: Source | None = None
        for layer in layers:
            yield layer, [before]
            before = (layer.name, 0, 0)
        return
    waiting: list[tuple[Layer, int, list[Source | None]]] = []
    for layer, item in zip(layers, items, strict=True):
        inbound = item.get("inbound_nodes", [])
        if not isinstance(inbound, list):
            raise CheckpointError(f"{one_line(layer.name)}: inbound_nodes is no list")
        if not inbound:
            waiting.append((layer, 0, []))
        for number, node in enumerate(inbound):
            waiting.append((layer, number, _sources(layer, node)))
    done: set[tuple[str, int]] = set()
    while waiting:
        rest = []
        for layer, number, sources in waiting:
            # The calls of one layer are numbered in their order.
            is_next = number == 0 or (layer.name, number - 1) in done
            if is_next and all(source and source[:2] in done for source in sources):
                done.add((layer.name, number))
                yield layer, sources
            else:
                rest.append((layer, number, sources))
        if len(rest) == len(waiting):
            raise CheckpointError(f"{one_line(rest[0][0].name)} reads what nothing makes")
        waiting = rest


def _sources(layer: Layer, node: Any) -> list[Source | None]:
    if isinstance(node, dict):
        raise ConversionError(
            "a model of Keras 3, which Larq does not support: save it by tf_keras"
        )
    if isinstance(node, list) and node and isinstance(node[0], str):
        node = [node]
    result: list[Source | None] = []
    for source in node if isinstance(node, list) else ():
        parts = source if isinstance(source, list) else []
        if not _is_reference(parts):
            raise CheckpointError(f"{one_line(layer.name)}: reads {one_line(source)}")
        result.append((parts[0], parts[1], parts[2]))
        further = parts[3].values() if len(parts) > 3 and isinstance(parts[3], dict) else ()
        result += [(v[0], v[1], v[2]) for v in further if _is_reference(v)]
    return result


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(number, int) for number in value[1:3])
    )


def _input_of(layer: Layer) -> Shape:
    shape = layer.config.get("batch_input_shape", layer.config.get("batch_shape"))
    if not isinstance(shape, list) or len(shape) not in (2, 4):
        raise ConversionError(f"the input has shape {one_line(shape)}, wanted vectors or maps")
    if not all(isinstance(n, int) and 0 < n < 1 << 20 for n in shape[1:]):
        raise ConversionError(
            f"the input has shape {one_line(shape)}: fix its sizes and save again"
        )
    return tuple(shape[1:])


def _outputs(
    config: Config, calls: list[Call], made: Mapping[tuple[str, int], tuple[str, ...]]
) -> list[Source]:
    listed = config.get("output_layers")
    if listed is None:
        return [(calls[-1][0].name, 0, 0)]
    if isinstance(listed, list) and listed and isinstance(listed[0], str):
        listed = [listed]
    found = [(o[0], o[1], o[2]) for o in listed if _is_reference(o)]
    if not found or any(source[:2] not in made for source in found):
        raise CheckpointError("its outputs are made by no layer")
    return found
