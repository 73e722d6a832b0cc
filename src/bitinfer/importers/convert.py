"""From a file of another framework to a model: what ``bitinfer convert`` calls."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer import zoo
from bitinfer._version import __version__
from bitinfer.errors import CheckpointError, GraphError, ShapeError
from bitinfer.importers import detect, states
from bitinfer.importers.options import DEFAULTS, Options
from bitinfer.importers.outcome import Conversion, Finding, conversion
from bitinfer.importers.readers._unpickle import quoted
from bitinfer.importers.readers.torch_checkpoint import read_file
from bitinfer.model import Model, Provenance
from bitinfer.zoo.data import LABELS


def convert(
    path: str | os.PathLike[str],
    arch: str | None = None,
    options: Options = DEFAULTS,
) -> tuple[Model, Conversion]:
    """Convert the file at ``path``.

    Meaning: its content says what format it has and, unless ``arch`` does, which architecture of
             the zoo a state dict belongs to.
    Cost:    memory for the file and about twice its largest layer.
    Raises:  CheckpointError if nothing reads such a file, or it does not hold that network;
             ConversionError if no checkpoints of ``arch`` can be read; ShapeError or InputError if
             labels or preprocessing do not fit it.
    """
    if arch is not None:
        states.find_family(arch)
    detect.refuse_directory(path)
    data = read_file(path)
    name = Path(path).name.encode("utf-8", "replace").decode()
    try:
        found = detect.require_reader(data)
        content = import_module(f"bitinfer.importers.readers.{found.reader}").from_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        del data
        with np.errstate(all="ignore"):  # what leaves float32 is found and named
            return _from_state_dict(content, arch, options, name, found.title, digest)
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error


def _from_state_dict(
    checkpoint: dict[str, Any],
    arch: str | None,
    options: Options,
    name: str,
    title: str,
    digest: str,
) -> tuple[Model, Conversion]:
    state = states.find_state_dict(checkpoint, arch, options.weights)
    if arch is None:
        arch = states.find_architecture(state)
    family = states.find_family(arch)
    preprocessing = options.replace_in(family.PREPROCESSING[arch])
    source = family.source(state, zoo.find(arch), options)
    try:
        graph, tensors = zoo.build(arch, source, classes=source.classes)
    except (GraphError, ShapeError) as error:
        raise CheckpointError(str(error)) from error
    state.check_nothing_left()
    model = Model(
        graph=graph,
        tensors=tensors,
        labels=options.labels_for(source.classes, LABELS[family.DATA_SETS[arch]]),
        preprocessing=preprocessing,
        provenance=Provenance(
            importer=family.IMPORTER,
            source=name,
            source_sha256=digest,
            versions={
                "bitinfer": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            notes=("height and width swapped",) if options.swap_hw else (),
        ),
    )
    report = conversion(name, f"{title} of {arch}", source.outcomes)
    if state.others:
        others = ", ".join(map(quoted, state.others))
        text = f"other sets of weights are in the file, under {others}; --weights takes one"
        finding = Finding("other weights", len(state.others), text)
        report = dataclasses.replace(report, findings=(*report.findings, finding))
    return model, report
