"""The error tree: one class per remedy.  Imports nothing, so every module may import it.

    BitInferError
        ShapeError         an array, graph or layer does not fit             (ValueError)
        GraphError         a graph that is not well formed                   (ValueError)
        ModelFileError     a model file that cannot be trusted               (ValueError)
        CheckpointError    somebody else's checkpoint cannot be read         (ValueError)
        ConversionError    a network that cannot become what is asked for    (ValueError)
        InputError         something to be classified or evaluated cannot be read (ValueError)
            ImageError     a picture
            DataError      a data set
        BackendError       a backend or kernel is absent here                (RuntimeError)
        MissingExtraError  an optional package is not installed              (ImportError)
        PicklingError      a session cannot be sent to a process             (TypeError)
        OutputError        a result cannot be written                        (OSError)
        UsageError         arguments that do not fit                         (ValueError)
            UnknownNameError  a name that nothing bears: names.py finds the one that was meant

A message says where, what came, what was wanted, and what to do, on one line.
"""

from __future__ import annotations

MESSAGE_LIMIT = 600
"""Characters; messages quote foreign values, which may have any length."""


class BitInferError(Exception):
    """Base of every error that bitinfer raises on purpose.

    Of a message beyond MESSAGE_LIMIT the middle is left out: it begins with where the error is and
    ends with what to do.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= MESSAGE_LIMIT:
            return text
        end = MESSAGE_LIMIT // 4
        return f"{text[: MESSAGE_LIMIT - end - 5]} ... {text[-end:]}"


class ShapeError(BitInferError, ValueError):
    """An array, a layer or a parameter has a shape or type that does not fit."""


class GraphError(BitInferError, ValueError):
    """A graph is not well formed: an unknown value, a duplicate, a kind that does not fit."""


class ModelFileError(BitInferError, ValueError):
    """A model file is truncated, corrupt, foreign or hostile."""


class CheckpointError(BitInferError, ValueError):
    """A checkpoint of another framework cannot be read or does not hold the expected network."""


class ConversionError(BitInferError, ValueError):
    """A network is sound, but cannot be turned into what is asked for."""


class InputError(BitInferError, ValueError):
    """An input of the network cannot be read."""


class ImageError(InputError):
    """A picture cannot be decoded, or is larger than allowed."""


class DataError(InputError):
    """A data set cannot be read, or does not fit the network."""


class BackendError(BitInferError, RuntimeError):
    """A backend or kernel is unknown, or not available on this machine."""


class MissingExtraError(BitInferError, ImportError):
    """A package of one of bitinfer's extras is not installed; the message names the command."""

    def __init__(self, reason: str, extra: str) -> None:
        super().__init__(reason, extra)
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.args[0]}; in the checkout: pip install '.[{self.extra}]'"


class PicklingError(BitInferError, TypeError):
    """A session that was not loaded from a file cannot be pickled."""


class UsageError(BitInferError, ValueError):
    """Arguments do not fit together, or do not fit what they are used on."""


class UnknownNameError(UsageError):
    """A name, of an architecture or a pass for instance, that nothing bears."""


class OutputError(BitInferError, OSError):
    """A result cannot be written where it was asked for."""
