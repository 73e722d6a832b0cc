"""From a file of another framework to a model: what ``bitinfer convert`` calls."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bitinfer import zoo
from bitinfer._version import __version__
from bitinfer.errors import (
    CheckpointError,
    ConversionError,
    GraphError,
    ShapeError,
    UsageError,
)
from bitinfer.importers import detect, states
from bitinfer.importers.folder import read_source
from bitinfer.importers.foreign import Foreign
from bitinfer.importers.options import DEFAULTS, Options
from bitinfer.importers.outcome import Conversion, Finding, conversion
from bitinfer.importers.readers._unpickle import quoted
from bitinfer.importers.recognise import recognise
from bitinfer.model import Model, Preprocessing, Provenance
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
             ConversionError if it holds what has no counterpart here, or no checkpoints of
             ``arch`` can be read; MissingExtraError if reading it wants a package that is absent;
             ShapeError or InputError if labels or preprocessing do not fit it; UsageError if
             ``arch`` is given for a file that holds its network.
    """
    if arch is not None:
        states.find_family(arch)
    data = read_source(path)
    try:
        content, origin = _read(path, data, options)
        if isinstance(content, Foreign):
            if arch is not None:
                raise UsageError(
                    f"{origin.name} is {origin.title} and holds its network: leave out --arch"
                )
            if options.weights is not None:
                raise UsageError(f"--weights is for state dicts, {origin.name} is {origin.title}")
            if options.swap_hw:
                raise UsageError(f"--swap-hw is for state dicts, {origin.name} is {origin.title}")
            return from_foreign(content, options, origin)
        with np.errstate(all="ignore"):  # what leaves float32 is found and named
            return _from_state_dict(content, arch, options, origin)
    except (CheckpointError, ConversionError) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def read_network(path: str | os.PathLike[str], options: Options = DEFAULTS) -> Foreign:
    """Return the network that the file at ``path`` holds, as its framework has it.

    Raises:
        CheckpointError: as of :func:`convert`.
        ConversionError: the file holds weights alone.
    """
    data = read_source(path)
    try:
        content, origin = _read(path, data, options)
    except (CheckpointError, ConversionError) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error
    if not isinstance(content, Foreign):
        state = states.find_state_dict(content, wanted=options.weights)
        try:
            network = states.foreign_network(state, swap_hw=options.swap_hw)
        except CheckpointError as error:
            raise CheckpointError(f"{os.fspath(path)}: {error}") from error
        if network is None:
            raise ConversionError(
                f"{os.fspath(path)}: this is {origin.title}, with weights of a network whose "
                "layers are not known here apart from bitinfer's own"
            )
        return network
    return content


def _read(path: str | os.PathLike[str], data: bytes, options: Options) -> tuple[Any, Origin]:
    """Return what a reader makes of the bytes of a file, and what the file is."""
    name = Path(path).name.encode("utf-8", "replace").decode()
    found = detect.require_reader(data)
    reader = import_module(f"bitinfer.importers.readers.{found.reader}")
    content = reader.from_bytes(data, **_further(found, options))
    digest = hashlib.sha256(data).hexdigest()
    return content, Origin(name, found.title, found.reader, digest)


def _further(found: detect.Format, options: Options) -> dict[str, Any]:
    """Return what a reader wants besides the file."""
    result: dict[str, Any] = {}
    if options.network is not None:
        if not found.has_network_apart:
            raise UsageError(f"--network: {found.title} holds its network, or needs none")
        result["network"] = options.network
    if options.input_shape is not None:
        if not found.has_shape_apart:
            raise UsageError(f"--input-shape: {found.title} says itself how large its input is")
        *size, channels = options.input_shape
        result["shape"] = (channels, *size)
    if options.bit_path:
        if not found.has_two_paths:
            raise UsageError(f"--bit-path is for darknet, this is {found.title}")
        result["bit_path"] = True
    return result


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a network comes from.

    Attributes:
        name: of the file, or of the network in memory.
        title: what that is, in words.
        importer: what reads it.
        digest: SHA-256 of the file.
        versions: of what else had a part in it.
    """

    name: str
    title: str
    importer: str
    digest: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def provenance(self, notes: tuple[str, ...] = ()) -> Provenance:
        """Return it as a model bears it."""
        return Provenance(
            importer=self.importer,
            source=self.name,
            source_sha256=self.digest,
            versions={
                "bitinfer": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                **self.versions,
            },
            notes=notes,
        )


def from_foreign(
    source: Foreign,
    options: Options,
    origin: Origin,
    trained_with: Preprocessing | None = None,
    labels: Sequence[str] = (),
) -> tuple[Model, Conversion]:
    """Return a network that a reader has read as a model, and what became of its layers.

    ``trained_with`` and ``labels`` are what is known of it, unless options say otherwise.
    """
    found = recognise(source)
    shape = found.graph.input.shape
    preprocessing = (
        options.preprocessing_for(shape)
        if trained_with is None
        else options.replace_in(trained_with)
    )
    model = Model(
        graph=found.graph,
        tensors=found.tensors,
        preprocessing=preprocessing,
        provenance=origin.provenance(),
    )
    classes = math.prod(model.checked.values[found.graph.outputs[0]].shape)
    model = dataclasses.replace(model, labels=options.labels_for(classes, labels or source.labels))
    report = conversion(origin.name, origin.title, found.layers)
    if preprocessing is None and len(shape) == 3 and shape[2] in (1, 3):
        text = (
            "input, of which the file does not say how pictures become it: --mean, --std, "
            "--scale and --resize do"
        )
        lack = Finding("no preprocessing", 1, text)
        report = dataclasses.replace(report, findings=(*report.findings, lack))
    return model, report


def _from_state_dict(
    checkpoint: dict[str, Any], arch: str | None, options: Options, origin: Origin
) -> tuple[Model, Conversion]:
    state = states.find_state_dict(checkpoint, arch, options.weights)
    found = states.find_architecture(state) if arch is None else arch
    notes = ("height and width swapped",) if options.swap_hw else ()
    if isinstance(found, states.StateNetwork):
        origin = dataclasses.replace(
            origin, importer=found.importer, title=f"{origin.title} of {found}"
        )
        network = found.network(state, swap_hw=options.swap_hw)
        model, report = from_foreign(
            network, options, origin, found.trained_with, LABELS[found.data_set]
        )
        model = dataclasses.replace(model, provenance=origin.provenance(notes))
        return model, _with_others(report, state)
    arch = found
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
        provenance=dataclasses.replace(origin, importer=family.IMPORTER).provenance(notes),
    )
    report = conversion(origin.name, f"{origin.title} of {arch}", source.outcomes)
    return model, _with_others(report, state)


def _with_others(report: Conversion, state: states.StateDict) -> Conversion:
    """Add to a report which further sets of weights the file holds."""
    if not state.others:
        return report
    others = ", ".join(map(quoted, state.others))
    text = f"other sets of weights are in the file, under {others}; --weights takes one"
    finding = Finding("other weights", len(state.others), text)
    return dataclasses.replace(report, findings=(*report.findings, finding))
