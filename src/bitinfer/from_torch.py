"""From a module of PyTorch, in the process that trained it, to a model file: :func:`export`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitinfer import modelfile
from bitinfer.errors import ConversionError, MissingExtraError
from bitinfer.files import check_writable, one_line
from bitinfer.importers.convert import Origin, from_foreign
from bitinfer.importers.options import Options
from bitinfer.importers.outcome import Conversion
from bitinfer.importers.readers.onnx import from_model
from bitinfer.model import Preprocessing

if TYPE_CHECKING:
    import torch


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
             MissingExtraError if torch, onnx or onnxscript is not installed; InputError or
             ShapeError if labels or preprocessing do not fit; OutputError if ``path`` cannot be
             written.
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

    was_training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(model, (example_input,), dynamo=True, verbose=False)
    except ImportError as error:
        reason = f"exporting a module needs onnx and onnxscript ({one_line(error)})"
        raise MissingExtraError(reason, "export") from error
    except Exception as error:  # torch.export raises errors of many kinds
        lines = str(error).strip().splitlines() or [""]
        reason = one_line(lines[0], 200)
        raise ConversionError(f"torch.export: {type(error).__name__}: {reason}") from error
    finally:
        for name, module in model.named_modules():
            module.training = was_training[name]
    return program.model_proto
