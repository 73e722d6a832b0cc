"""Runs the network of a state dict by torch's own modules, in float32, as its trainer did.

Only what states/ writes is known: words of foreign.OPERATIONS with maps in NCHW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ConversionError
from bitinfer.importers.foreign import Foreign

Attributes = Mapping[str, Any]


def run(source: Foreign, x: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Return torch's name with its version, and what it makes of ``x`` at the first output.

    Shapes:  x (N, C, H, W) float32.
    Raises:  ConversionError if the network has a word that no state dict's has.
    """
    import torch

    values: dict[str, Any] = {
        name: torch.from_numpy(np.array(array)) for name, array in source.constants.items()
    }
    values[source.input] = torch.from_numpy(x)
    with torch.no_grad():
        for node in source.nodes:
            word = _WORDS.get(node.operation)
            if word is None:
                raise ConversionError(f"{node.name} ({node.operation}): by torch, it has no word")
            inputs = [values.get(name) for name in node.inputs]
            values[node.name] = word(torch, dict(node.attributes), *inputs)
    return f"torch {torch.__version__}, float32", values[source.outputs[0]].numpy()


def _conv(torch: Any, a: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    top, _, left, _ = a["pads"]
    return torch.nn.functional.conv2d(
        x, weight, bias, a["strides"], (top, left), a["dilations"], a["groups"]
    )


def _dense(torch: Any, a: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    return torch.nn.functional.linear(x, weight, bias)


def _norm(torch: Any, a: Attributes, x: Any, gamma: Any, beta: Any, mean: Any, var: Any) -> Any:
    return torch.nn.functional.batch_norm(x, mean, var, gamma, beta, eps=a["epsilon"])


def _sign(torch: Any, a: Attributes, x: Any) -> Any:
    scale, centre = (a["high"] - a["low"]) / 2, (a["high"] + a["low"]) / 2
    return torch.sign(x) * scale + centre


def _prelu(torch: Any, a: Attributes, x: Any, slope: Any) -> Any:
    return torch.nn.functional.prelu(x, slope.reshape(-1))


def _pool(name: str) -> Callable[..., Any]:
    def word(torch: Any, a: Attributes, x: Any) -> Any:
        top, _, left, _ = a["pads"]
        function = getattr(torch.nn.functional, name)
        return function(x, a["kernel"], a["strides"], (top, left))

    return word


def _slice(torch: Any, a: Attributes, x: Any) -> Any:
    return x.narrow(a["axis"] + 1, a["begin"], a["end"] - a["begin"])


_WORDS: Mapping[str, Callable[..., Any]] = {
    "conv": _conv,
    "dense": _dense,
    "batch_norm": _norm,
    "sign": _sign,
    "relu": lambda torch, a, x: torch.relu(x),
    "prelu": _prelu,
    "clip": lambda torch, a, x: torch.nn.functional.hardtanh(x, a["low"], a["high"]),
    "add": lambda torch, a, x, y: x + y,
    "subtract": lambda torch, a, x, y: x - y,
    "multiply": lambda torch, a, x, y: x * y,
    "max_pool": _pool("max_pool2d"),
    "avg_pool": _pool("avg_pool2d"),
    "global_avg_pool": lambda torch, a, x: torch.nn.functional.adaptive_avg_pool2d(x, 1),
    "flatten": lambda torch, a, x: x.flatten(1),
    "concat": lambda torch, a, *x: torch.cat(x, a["axis"] + 1),
    "slice": _slice,
}
