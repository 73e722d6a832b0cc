"""From a module of PyTorch, in the process that trained it, to a model file: :func:`export`."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitinfer import modelfile
from bitinfer.errors import ConversionError, InputError, MissingExtraError
from bitinfer.files import check_writable, one_line
from bitinfer.importers.convert import Origin, from_foreign
from bitinfer.importers.options import Options
from bitinfer.importers.outcome import Conversion
from bitinfer.importers.readers.onnx import from_model
from bitinfer.model import Preprocessing

if TYPE_CHECKING:
    import torch

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def export(
    model: torch.nn.Module,
    example_input: torch.Tensor,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    preprocess: Preprocessing | None = None,
) -> Conversion:
    """Write ``model`` as a model file, and say what became of every layer.

    Shapes:  example_input (N, C, H, W) or (N, features); N is not kept.
    Meaning: the network as it is in evaluation, traced by torch.export and written to ONNX in
             memory; whatever computes a sign there is one here.  The module is left as it was.
    Raises:  ConversionError if torch cannot trace it, or it holds what has no counterpart here;
             MissingExtraError if torch, onnx or onnxscript is not installed; InputError if
             ``model`` is no module or ``example_input`` no tensor; InputError or ShapeError if
             labels or preprocessing do not fit; OutputError if ``path`` cannot be written.
    """
    check_writable(path)
    origin = Origin(
        name=type(model).__name__,
        title="a module of PyTorch",
        importer="torch",
        versions={"torch": _version()},
    )
    found, report = from_foreign(
        from_model(_trace(model, example_input)), Options(labels=labels), origin
    )
    if preprocess is not None:
        found = dataclasses.replace(found, preprocessing=preprocess)
        known = [f for f in report.findings if f.kind != "no preprocessing"]
        report = dataclasses.replace(report, findings=tuple(known))
    modelfile.save(found, path)
    return report


def _version() -> str:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("exporting a module needs torch", "export") from error
    return str(torch.__version__)


def _trace(model: torch.nn.Module, example_input: torch.Tensor) -> Any:
    """Return the network as an ONNX ModelProto."""
    import torch

    for value, kind in ((model, torch.nn.Module), (example_input, torch.Tensor)):
        if not isinstance(value, kind):
            raise InputError(
                f"export: came {type(value).__module__}.{type(value).__qualname__}, wanted a "
                f"torch.{'Tensor' if kind is torch.Tensor else 'nn.Module'}"
            )
    was_training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(model, (example_input,), dynamo=True, verbose=False)
            _restore_constants(program.model.graph)
    except ImportError as error:
        reason = f"exporting a module needs onnx and onnxscript ({one_line(error)})"
        raise MissingExtraError(reason, "export") from error
    except Exception as error:  # torch.export raises errors of many kinds
        raise ConversionError(f"torch.export: {_reason(error)}") from error
    finally:
        for name, module in model.named_modules():
            module.training = was_training[name]
    return program.model_proto


def _restore_constants(graph: Any) -> None:
    """List the constants again that the exporter's passes have dropped although nodes read them.

    Where two nodes clamp one value, onnxscript's merging of equal constants leaves a model whose
    first clamp has no bounds; the constants are still known to the values that the node reads.
    """
    for node in graph:
        for value in node.inputs:
            if (
                value is not None
                and value.const_value is not None
                and value.producer() is None
                and not value.is_graph_input()
                and value.name not in graph.initializers
            ):
                graph.register_initializer(value)


def _reason(error: BaseException) -> str:
    """Return the first line of what an error was raised from at last: torch wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = _COLOURS.sub("", str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {one_line(lines[0], 300)}"
