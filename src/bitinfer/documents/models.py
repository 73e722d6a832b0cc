"""Answers on a model file.  Nothing here knows a backend."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from bitinfer.documents import Answer, Bytes, Count, ModelFile, Part, Sha256, Shape
from bitinfer.model import Preprocessing, Provenance


class NamedShape(Part, frozen=True):
    """An input or output."""

    name: str
    shape: Shape


class LayerInfo(Part, frozen=True):
    """A node of the graph.

    Attributes:
        op: the operation, as the model file spells it.
        output_shape, kind: of its value: ``float``, ``sign``, ``uint8`` or ``int8`` elements.
        weight_bits: bits of a weight, 1 if it is a sign; null without weights.
        parameters: elements of its tensors, packed signs counted one by one.
        operations: multiply-accumulates of one sample.
    """

    name: str
    op: str
    output_shape: Shape
    kind: str
    weight_bits: Count | None
    parameters: Count
    operations: Count


class FusedLayerInfo(LayerInfo, frozen=True):
    """A layer as it is run; ``epilogue`` is what is fused into it, in the order of application."""

    epilogue: tuple[str, ...]


class PassInfo(Part, frozen=True):
    """A pass, and how many nodes the graph has before and after it."""

    name: str
    before: Count
    after: Count


class Optimised(Part, frozen=True):
    """The network as it is run: what each pass left, in order, and the layers at the end."""

    passes: tuple[PassInfo, ...]
    layers: tuple[FusedLayerInfo, ...]


class Inspect(Answer, frozen=True):
    """What ``bitinfer inspect --json`` prints.

    Attributes:
        sha256: of the file; ``checksum`` is the one that the file bears.
        layers: in order of execution.
        parameters, operations: of all layers.
        binary_operations: those with weights of one bit.
        file_bytes, float32_bytes: size of the file, and of its parameters in float32.
        arena_bytes: of all values between input and outputs; kernels may add scratch.
        input_range: least and largest value that pixels become in the network's input, of all
            channels; null if the model does not say.
        takes_floats: whether it takes float32 too, and not pixels (uint8) alone.
        labels: of the classes in order; empty if the model has none.
        optimised: with ``--passes``.
    """

    path: str
    sha256: Sha256
    checksum: Sha256
    format_version: Count
    name: str
    input: NamedShape
    outputs: tuple[NamedShape, ...]
    layers: tuple[LayerInfo, ...]
    parameters: Count
    operations: Count
    binary_operations: Count
    file_bytes: Bytes
    float32_bytes: Bytes
    arena_bytes: Bytes
    input_range: tuple[float, float] | None
    takes_floats: bool
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    provenance: Provenance | None
    optimised: Optimised | UnsetType = UNSET


class ZooModel(Part, frozen=True):
    """A trained model that is installed with bitinfer.

    Attributes:
        path, sha256, bytes: of its file.
        architecture: of the zoo.
        data_set: ``correct`` of ``total`` of its test pictures are right.
    """

    name: str
    path: str
    sha256: Sha256
    bytes: Bytes
    architecture: str
    data_set: str
    correct: Count
    total: Count


class Zoo(Answer, frozen=True):
    """What ``bitinfer zoo --json`` prints: all models, or the one that was asked for."""

    models: tuple[ZooModel, ...]


class ExportTarget(Part, frozen=True):
    """An exported network on one kind of CPU.

    Attributes:
        name: ``x86_64``, ``aarch64``, or ``other`` for every other one.
        instruction_sets: those with kernels, poorest first; the CPU decides as the program runs.
        constant_bytes: ROM of weights and other constants.
        network_bytes, arena_bytes: RAM, once for a network and once for every call under way.
    """

    name: str
    instruction_sets: tuple[str, ...]
    constant_bytes: Bytes
    network_bytes: Bytes
    arena_bytes: Bytes


class ExportedCode(Part, frozen=True):
    """ROM of the code, as it was measured: what compiled it, and for which kind of CPU."""

    bytes: Bytes
    compiler: str
    target: str


class ExportC(Answer, frozen=True):
    """What ``bitinfer export-c --json`` prints.

    Attributes:
        name: of the functions, behind ``bitinfer_``.
        header, source: the files that were written.
        kernels: operation, method and instruction set of every kernel in them.
        code: null if there is no C compiler.
    """

    model: ModelFile
    name: str
    header: str
    source: str
    targets: tuple[ExportTarget, ...]
    kernels: tuple[str, ...]
    code: ExportedCode | None
