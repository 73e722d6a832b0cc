"""Passes that fuse what stands behind a layer into its epilogue, so that its sums are written once.

Of a chain of nodes that becomes one, every inner value has one reader and is no output.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from bitinfer import numerics
from bitinfer.graph import nodes
from bitinfer.graph.checked import CheckedGraph
from bitinfer.graph.nodes import BinaryLayer, Epilogue, Function, Layer, Node, node_inputs
from bitinfer.graph.passes.chains import bisect, bits_of, has_integer_sums, largest_sums
from bitinfer.graph.passes.draft import Draft
from bitinfer.graph.values import Value

Array = NDArray[Any]

replace = msgspec.structs.replace


def fold_batch_norm(checked: CheckedGraph) -> CheckedGraph:
    """Fold BatchNorm into the scale and bias (of float weights: the weights) of the layer before.

    A ReLU between them becomes the smallest sum (``floor``): for a positive alpha,
    ``max(sum * alpha + bias, 0) * s + t = max(sum, -bias / alpha) * (alpha * s) + (bias * s + t)``.
    Results differ by rounding; a sign that is taken of them behind integer sums does not, since its
    threshold follows.
    """
    draft = Draft(checked)
    for norm in draft.nodes():
        if not isinstance(norm, nodes.BatchNorm):
            continue
        relu, layer = None, draft.maker(norm.input)
        if isinstance(layer, nodes.Relu):
            relu, layer = layer, draft.maker(layer.input)
        if not isinstance(layer, Layer) or layer.epilogue is not None:
            continue
        chain: tuple[Node, ...] = (layer, norm) if relu is None else (layer, relu, norm)
        if any(draft.only_reader(node.name) is None for node in chain[:-1]):
            continue
        folded = _with_norm(draft, layer, norm, has_relu=relu is not None)
        if folded is not None:
            draft.replace(chain, folded)
    return draft.finish()


def fuse_residual(checked: CheckedGraph) -> CheckedGraph:
    """Add a second value of the same shape in the epilogue of the layer that it is added to.

    Of two layers, the binary one takes it, else the later one.  A ReLU between the layer and the
    addition becomes the smallest sum, as in :func:`fold_batch_norm`.
    """
    draft = Draft(checked)
    for add in draft.nodes():
        if not isinstance(add, nodes.Add):
            continue
        shape = draft.values[add.input].shape
        if add.input == add.other or draft.values[add.other] != Value("float", shape):
            continue
        fused = [
            made
            for layer, residual in ((add.input, add.other), (add.other, add.input))
            if (made := _with_residual(draft, layer, residual, add)) is not None
        ]
        if fused:
            chain, layer = max(fused, key=lambda made: _preference(draft, made[0][0]))
            draft.replace(chain, layer)
    return draft.finish()


def fuse_activation(checked: CheckedGraph) -> CheckedGraph:
    """Apply an activation in the epilogue of the layer before, or of those that are joined."""
    draft = Draft(checked)
    for node in draft.nodes():
        if not isinstance(node, nodes.ActivationNode):
            continue
        before = draft.maker(node.input)
        if before is None or draft.only_reader(before.name) is not node:
            continue
        if isinstance(before, nodes.Concat):
            _activate_parts(draft, before, node)
        elif _can_activate(before):
            draft.replace((before, node), _activated(before, node.activation()))
    return draft.finish()


def _can_activate(node: Node | None) -> TypeGuard[Layer]:
    """Whether a node is a layer whose epilogue has room for an activation."""
    if not isinstance(node, Layer):
        return False
    e = node.epilogue or Epilogue()
    return e.activation is None and e.threshold is None


def _activated(layer: Layer, activation: nodes.Activation) -> Layer:
    return replace(layer, epilogue=replace(layer.epilogue or Epilogue(), activation=activation))


def _activate_parts(draft: Draft, concat: nodes.Concat, node: nodes.ActivationNode) -> None:
    """Give each layer whose result is joined its channels' part of the activation, if all can."""
    names = node_inputs(concat)
    layers = [draft.maker(name) for name in names]
    if len(set(names)) < len(names) or not all(map(_can_activate, layers)):
        return
    if any(draft.only_reader(name) is not concat for name in names):
        return
    whole, begin = node.activation(), 0
    for layer in filter(_can_activate, layers):
        end = begin + draft.values[layer.name].shape[-1]
        parts = {
            field: draft.keep(f"{layer.name}.{field}", draft.tensor(name)[begin:end])
            for field in ("shift_in", "slope", "shift_out")
            if (name := getattr(whole, field)) is not None
        }
        draft.redefine(layer, _activated(layer, replace(whole, **parts)))
        begin = end
    made = draft.maker(concat.name)
    assert made is not None
    draft.replace((made, node), made)


def fuse_signs(checked: CheckedGraph) -> CheckedGraph:
    """Pack signs in the epilogue of the layer whose result they are taken of.

    The floats are written too if others read them.  Of several signs the first is fused.
    """
    draft = Draft(checked)
    for sign in draft.nodes():
        if not isinstance(sign, nodes.Sign):
            continue
        layer = draft.maker(sign.input)
        if not isinstance(layer, Layer) or layer.name != sign.input:
            continue
        e = layer.epilogue or Epilogue()
        if e.threshold is not None:
            continue
        threshold = sign.threshold
        if threshold is None:
            zeros = np.zeros(draft.values[layer.name].shape[-1], np.float32)
            threshold = draft.keep(f"{sign.name}.threshold", zeros)
        e = replace(e, threshold=threshold, flip=sign.flip)
        if draft.only_reader(layer.name) is sign:
            draft.replace((layer, sign), replace(layer, epilogue=e))
        else:
            fused = replace(layer, epilogue=replace(e, signs=sign.name))
            draft.fuse_beside((layer, sign), fused)
    return draft.finish()


def fold_padding(checked: CheckedGraph) -> CheckedGraph:
    """Let a convolution pad its input itself, where it pads with the same value or not at all."""
    draft = Draft(checked)
    for pad in draft.nodes():
        if not isinstance(pad, nodes.Pad2d):
            continue
        conv = draft.only_reader(pad.name)
        kind = draft.values[pad.input].kind
        if isinstance(conv, nodes.Conv2d) and kind == "float" and pad.value == 0:
            folded = _with_padding(conv, pad)
        elif isinstance(conv, nodes.BinaryConv2d) and kind == "sign" and conv.input == pad.name:
            value = conv.pad_value if any(conv.padding) else int(pad.value)
            if value != pad.value:
                continue
            folded = replace(_with_padding(conv, pad), pad_value=value)
        else:
            continue
        if conv.input == pad.name:
            draft.replace((pad, conv), folded)
    return draft.finish()


def _with_padding(conv: Any, pad: nodes.Pad2d) -> Any:
    sides = tuple(a + b for a, b in zip(conv.padding, pad.padding, strict=True))
    return replace(conv, input=pad.input, padding=sides)


def _with_norm(
    draft: Draft, layer: Layer, norm: nodes.BatchNorm, *, has_relu: bool
) -> Layer | None:
    """Return the layer with a BatchNorm, and a ReLU before it, folded in; None if it cannot be."""
    scale, shift = norm.norm(draft.tensors).folded()
    before = layer
    if has_relu:
        floor = _floor_of_relu(draft, layer)
        if floor is None:
            return None
        layer = replace(layer, epilogue=Epilogue(floor=draft.keep(f"{norm.name}.floor", floor)))
    weight = draft.tensor(layer.weight)
    bias = draft.tensor(layer.bias)
    with np.errstate(all="ignore"):
        new_bias = (shift if bias is None else bias * scale + shift).astype(np.float32)
        is_float = weight.dtype == np.float32 and layer.alpha is None and not has_relu
        if is_float:
            weight = weight * scale.astype(np.float32).reshape(-1, *[1] * (weight.ndim - 1))
        alpha = draft.tensor(layer.alpha)
        alpha = (scale if alpha is None else alpha * scale).astype(np.float32)
    if not all(np.isfinite(t).all() for t in (weight, new_bias, alpha)):
        return None  # each part is within float32, but their product is not
    if not is_float and not _keep_signs(draft, before, norm, alpha, new_bias, has_relu=has_relu):
        return None
    layer = replace(layer, bias=draft.keep(f"{norm.name}.bias", new_bias))
    if is_float:
        return replace(layer, weight=draft.keep(f"{norm.name}.weight", weight))
    return replace(layer, alpha=draft.keep(f"{norm.name}.alpha", alpha))


def _keep_signs(
    draft: Draft,
    layer: Layer,
    norm: nodes.BatchNorm,
    alpha: Array,
    bias: Array,
    *,
    has_relu: bool,
) -> bool:
    """Let the signs of a BatchNorm of integer sums decide by what the layer makes of these sums.

    ``alpha`` and ``bias`` are the layer's with the BatchNorm folded in.  A sign's threshold becomes
    the result of the first sum on its other side, so that the rounding of neither form matters.

    Returns False, and changes nothing, if two sums on either side would give the same result.
    """
    signs = [node for node in draft.readers(norm.name) if isinstance(node, nodes.Sign)]
    if not signs or not has_integer_sums(draft, layer):
        return True
    old_alpha, old_bias = draft.tensor(layer.alpha), draft.tensor(layer.bias)
    floor = _floor_of_relu(draft, layer) if has_relu else None
    chain: list[Node] = [nodes.Relu(name="relu", input="")] if has_relu else []
    limit = largest_sums(draft, layer)
    changed = []
    for sign in signs:
        behind = bits_of(draft, [*chain, norm], sign)

        def bits(sums: Array, behind: Function = behind) -> Array:
            return behind(numerics.scale_sum(sums, old_alpha, old_bias))

        first, flip = bisect(bits, -limit, limit)
        is_constant = first == -limit
        above = numerics.scale_sum(first, alpha, bias, floor=floor)
        below = numerics.scale_sum(first - 1, alpha, bias, floor=floor)
        if ((above == below) & ~is_constant).any():
            return False
        falls = (above < below) & ~is_constant
        threshold = np.where(falls, below, above)
        threshold[is_constant] = -np.inf
        changed.append((sign, threshold, flip ^ falls))
    for sign, threshold, flip in changed:
        name = sign.name
        new = replace(
            sign,
            threshold=draft.keep(f"{name}.threshold", threshold.astype(np.float32)),
            flip=draft.keep(f"{name}.flip", flip.astype(np.uint8)) if flip.any() else None,
        )
        draft.rearrange((sign,), (new,))
    return True


def _floor_of_relu(draft: Draft, layer: Layer) -> Array | None:
    """Return the sums (Cout,) below which a ReLU behind the layer gives 0; None if it cannot be."""
    if getattr(layer, "beta", None) is not None or getattr(layer, "offset", None) is not None:
        return None
    alpha, bias = draft.tensor(layer.alpha), draft.tensor(layer.bias)
    channels = draft.values[layer.name].shape[-1]
    floor = np.zeros(channels, np.float32) if bias is None else -bias
    if alpha is not None:
        if not (alpha > 0).all():
            return None
        with np.errstate(all="ignore"):
            floor = floor / alpha
    return floor if np.isfinite(floor).all() else None


def _with_residual(
    draft: Draft, name: str, residual: str, add: nodes.Add
) -> tuple[tuple[Node, ...], Layer] | None:
    """Return the nodes that a layer with the addition in it replaces, and that layer."""
    layer, relu = draft.maker(name), None
    if isinstance(layer, nodes.Relu):
        relu, layer = layer, draft.maker(layer.input)
    if not isinstance(layer, Layer):
        return None
    chain: tuple[Node, ...] = (layer, add) if relu is None else (layer, relu, add)
    if any(draft.only_reader(node.name) is None for node in chain[:-1]):
        return None
    e = layer.epilogue or Epilogue()
    if e.residual is not None or e.activation is not None or e.threshold is not None:
        return None
    if relu is not None:
        floor = None if e.floor is not None else _floor_of_relu(draft, layer)
        if floor is None:
            return None
        e = replace(e, floor=draft.keep(f"{add.name}.floor", floor))
    return chain, replace(layer, epilogue=replace(e, residual=residual))


def _preference(draft: Draft, layer: Node) -> tuple[bool, float]:
    return isinstance(layer, BinaryLayer), draft.rank(layer)
