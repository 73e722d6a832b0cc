"""The error tree: one class per remedy.  Imports nothing, so every module may import it.

    BitInferError
        ShapeError        an array, graph or layer does not fit      (ValueError)
        GraphError        a graph that is not well formed            (ValueError)
        ModelFileError    a model file that cannot be trusted        (ValueError)
        CheckpointError   somebody else's checkpoint cannot be read  (ValueError)
        InputError        something to be classified or evaluated cannot be read (ValueError)
            ImageError    a picture
            DataError     a data set
        BackendError      a backend or kernel is absent here         (RuntimeError)
        PicklingError     a session cannot be sent to a process      (TypeError)
        OutputError       a result cannot be written                 (OSError)
        UsageError        options of a command that do not fit       (ValueError)

A message says where, what came, what was wanted, and what to do, on one line.
"""

from __future__ import annotations


class BitInferError(Exception):
    """Base of every error that bitinfer raises on purpose."""


class ShapeError(BitInferError, ValueError):
    """An array, a layer or a parameter has a shape or type that does not fit."""


class GraphError(BitInferError, ValueError):
    """A graph is not well formed: an unknown name, a duplicate, a kind that does not fit."""


class ModelFileError(BitInferError, ValueError):
    """A model file is truncated, corrupt, foreign or hostile."""


class CheckpointError(BitInferError, ValueError):
    """A checkpoint of another framework cannot be read or does not hold the expected network."""


class InputError(BitInferError, ValueError):
    """An input of the network cannot be read."""


class ImageError(InputError):
    """A picture cannot be decoded, or is larger than allowed."""


class DataError(InputError):
    """A data set cannot be read, or does not fit the network."""


class BackendError(BitInferError, RuntimeError):
    """A backend or kernel is unknown, or not available on this machine."""


class PicklingError(BitInferError, TypeError):
    """A session that was not loaded from a file cannot be pickled."""


class UsageError(BitInferError, ValueError):
    """Options of a command do not fit together, or do not fit what they are used on."""


class OutputError(BitInferError, OSError):
    """A result cannot be written where it was asked for."""
