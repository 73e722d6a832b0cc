"""The answer on what a model and its source have in common."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from bitinfer.documents import Answer, Count, ModelFile, Part


class SignCheck(Part, frozen=True):
    """What was found at one sign, of the samples that count.

    Attributes:
        name: as in the source.
        layer: the layer that reads it first; empty if none does.
        differing: signs that differ though the source's value is off the threshold.
        ties: signs whose value is at the threshold, within the rounding of float32.
        ties_differing: of these, signs that differ.
    """

    name: str
    layer: str
    compared: Count
    differing: Count
    ties: Count
    ties_differing: Count


class FirstDifference(Part, frozen=True):
    """Where source and model part.

    Attributes:
        name: of the sign or output.
        layers: of the source, in which the fault must be.
        explanations: what, changed in the source, makes it equal to the model.
    """

    name: str
    layers: tuple[str, ...]
    explanations: tuple[str, ...]


class RuntimeCheck(Part, frozen=True):
    """What the framework's own runtime has beside the model.

    Attributes:
        close: samples whose outputs are close to the model's.
        failure: why it does not run the source; empty if it does.
    """

    name: str
    close: Count
    largest: float
    failure: str


class Verify(Answer, frozen=True):
    """What ``bitinfer verify --json`` prints.

    Attributes:
        source: the file that the model was compared with.
        equal: whether every sign but ties is equal, and outputs are close.
        left_out: samples that are not compared behind a tie that fell to the other side.
        largest_difference: of outputs, over the samples that count.
        largest_output: of the source.
        same_answers: samples, of all, with the same largest output.
        ran: what ran the source: bitinfer's own evaluator, and the framework's runtime if it could.
        runtime: of the source's framework, where one is installed.
    """

    model: ModelFile
    source: str
    backend: str
    equal: bool
    samples: Count
    left_out: Count
    ties: Count
    largest_difference: float
    largest_output: float
    same_answers: Count
    signs: tuple[SignCheck, ...]
    ran: tuple[str, ...]
    first_difference: FirstDifference | UnsetType = UNSET
    runtime: RuntimeCheck | UnsetType = UNSET
