"""errors.py and names.py: what a caller can catch, and what a message says."""

from __future__ import annotations

import inspect
import pickle

import pytest

import bitinfer
from bitinfer import errors, names, zoo
from bitinfer.cli._app import _EXIT_CODES
from bitinfer.errors import BitInferError, MissingExtraError, UnknownNameError, UsageError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_stands_at_the_top_of_the_package_and_in_the_tree(kind: type) -> None:
    assert getattr(bitinfer, kind.__name__) is kind
    assert kind.__name__ in bitinfer.__all__
    assert issubclass(kind, BitInferError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_but_the_base_and_that_of_pickles_has_an_exit_code(kind: type) -> None:
    has_code = any(issubclass(kind, known) for known, _ in _EXIT_CODES)
    assert has_code == (kind not in (BitInferError, errors.PicklingError))


@pytest.mark.parametrize("kind", [c for c in CLASSES if c is not MissingExtraError])
def test_a_long_message_keeps_its_beginning_and_its_end(kind: type[BitInferError]) -> None:
    text = str(kind("x.tflite: " + "7, " * 10_000 + "leave it out"))
    assert text.startswith("x.tflite: 7, 7, ")
    assert text.endswith("7, leave it out")
    assert len(text) == errors.MESSAGE_LIMIT
    assert str(kind("n" * errors.MESSAGE_LIMIT)) == "n" * errors.MESSAGE_LIMIT


def test_a_missing_extra_is_an_import_error_that_says_what_to_install() -> None:
    error = MissingExtraError("training needs PyTorch", "train")
    assert isinstance(error, ImportError)
    assert str(error) == "training needs PyTorch; in the checkout: pip install '.[train]'"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.extra) == (str(error), "train")


def test_an_unknown_name_is_answered_with_the_one_that_was_meant() -> None:
    assert str(names.unknown("fruit", "aple", ["pear", "apple"])) == (
        "unknown fruit 'aple'; did you mean 'apple'?"
    )
    assert str(names.unknown("fruit", "x\n", ["pear", "apple"])) == (
        r"unknown fruit 'x\n'; choose from pear, apple"
    )


def test_an_unknown_architecture_is_a_usage_error() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'xnor-lenet5'") as caught:
        zoo.find("xnor-lenet")
    assert isinstance(caught.value, UsageError)
