"""The list of mistakes: each is one that can still be made."""

from __future__ import annotations

import pytest

import mutants
from mutants import MUTANTS, THREAD_MUTANTS, Mutant


@pytest.mark.skipif(not mutants.CSRC.is_dir(), reason="there are no C sources beside the tests")
@pytest.mark.parametrize(
    "mutant", [*MUTANTS, *THREAD_MUTANTS], ids=lambda mutant: mutant.what.replace(" ", "-")
)
def test_the_text_of_a_mistake_stands_exactly_once(mutant: Mutant) -> None:
    assert (mutants.CSRC / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
