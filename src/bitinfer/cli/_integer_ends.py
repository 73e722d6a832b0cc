"""``convert --integer-ends``: how many bits the first layer gets, and what that changes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitinfer.cli._common import main_output, note_passed_over
from bitinfer.cli._terminal import printable, progress, report

if TYPE_CHECKING:
    from bitinfer.errors import ImageError
    from bitinfer.model import Model

CHOOSE = 0
"""Stands for the bits that are chosen by measuring."""

_ENOUGH_PICTURES = 100
_PICTURES_FOR_A_LOSS = 500


def add_integer_ends(parser: argparse.ArgumentParser) -> None:
    """Add the options, for :func:`with_integer_ends`."""
    parser.add_argument(
        "--integer-ends",
        nargs="?",
        const=CHOOSE,
        type=_bits,
        metavar="BITS",
        help="compute the first convolution from pixels with integer weights of 8 or 16 bits, and "
        "give the last dense layers 8-bit weights: faster, nearly the same; the network then takes "
        "pixels only. Without BITS it is 16, or 8 where --pictures show that this loses nothing",
    )
    parser.add_argument(
        "--pictures",
        metavar="DATA",
        help="with --integer-ends: labelled pictures, as for 'bitinfer eval', to say what they "
        f"cost, and to choose BITS by where there are {_ENOUGH_PICTURES} or more",
    )


def _bits(text: str) -> int:
    if text not in ("8", "16"):
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is neither 8 nor 16; a file stands before the option, or behind "
            "another one"
        )
    return int(text)


@dataclasses.dataclass
class Answers:
    """What a network with integer ends says of labelled pictures, beside the one with float ends.

    Attributes:
        right: pictures whose largest output is that of the label.
        same: pictures with the answer of the network with float ends.
        largest: by how much an output differs from that network's, at most.
    """

    right: int = 0
    same: int = 0
    largest: float = 0.0


def with_integer_ends(model: Model, args: argparse.Namespace) -> tuple[Model, list[str], int]:
    """Return the network with integer ends, what is to be said of it, and unreadable pictures.

    Those are reported, and counted.
    """
    from bitinfer.integer_ends import integer_ends

    choosing = args.integer_ends == CHOOSE
    wanted = (16, 8) if choosing and args.pictures is not None else (args.integer_ends or 16,)
    ends = [integer_ends(model, bits) for bits in wanted]
    remarks: list[str] = []
    failed, taken = 0, 0
    if args.pictures is not None:
        total, right, answers, failed = _compare(model, [e.model for e in ends], args)
        not_read = f", {failed} not read" if failed else ""
        remarks += [
            f"{bits} bits: top-1 {100 * right / total:.2f} % -> {100 * a.right / total:.2f} % of "
            f"{total} pictures, {a.same} answers the same, outputs at most {a.largest:.2g} apart"
            f"{not_read}"
            for bits, a in zip(wanted, answers, strict=True)
        ]
        if choosing:
            takes_8, why = eight_are_enough(total, answers[0].right, answers[1].right)
            taken = int(takes_8)
            remarks.append(f"took {wanted[taken]} bits: {why}")
    elif choosing:
        remarks.append("took 16 bits: there are no --pictures to measure by what 8 would lose")
    remarks += ends[taken].notes
    return ends[taken].model, [f"integer ends: {text}" for text in remarks], failed


def eight_are_enough(total: int, right_16: int, right_8: int) -> tuple[bool, str]:
    """Say whether 8 bits are to be taken, and why, of so many right answers of ``total``."""
    if total < _ENOUGH_PICTURES:
        return False, f"fewer than {_ENOUGH_PICTURES} pictures do not tell what 8 would lose"
    allowed = total // _PICTURES_FOR_A_LOSS
    compared = f"8 give {right_8} right answers where 16 give {right_16}"
    limit = f"{allowed} fewer are allowed, one of {_PICTURES_FOR_A_LOSS} pictures"
    return right_16 - right_8 <= allowed, f"{compared}; {limit}"


def _compare(
    model: Model, others: Sequence[Model], args: argparse.Namespace
) -> tuple[int, int, list[Answers], int]:
    """Run networks on labelled pictures, and other forms of them beside.

    Returns how many pictures there are, the right answers of the network, what the others say, and
    how many pictures cannot be read, each of which is reported.
    """
    import numpy as np

    from bitinfer import datasets
    from bitinfer.errors import DataError
    from bitinfer.session import Session

    before, after = Session(model), [Session(other) for other in others]
    answers = [Answers() for _ in others]
    total = right = failed = 0

    def count_failure(error: ImageError) -> None:
        nonlocal failed
        failed += 1
        report(str(error))

    def outputs_of(session: Session, images: Any, count: int) -> Any:
        return main_output(session, session.run(images)).reshape(count, -1)

    data = datasets.load(args.pictures, model, limit=args.limit, on_error=count_failure)
    if not args.quiet:
        note_passed_over(data.passed_over)
    with progress(data.total, quiet=args.quiet) as advance:
        for images, labels in data:
            wanted = outputs_of(before, images, len(labels))
            first = wanted.argmax(axis=1)
            total += len(labels)
            right += int(np.count_nonzero(first == labels))
            for session, a in zip(after, answers, strict=True):
                got = outputs_of(session, images, len(labels))
                a.right += int(np.count_nonzero(got.argmax(axis=1) == labels))
                a.same += int(np.count_nonzero(got.argmax(axis=1) == first))
                a.largest = max(a.largest, float(np.abs(got - wanted).max()))
            advance(total, f"{answers[-1].same} answers the same")
    if not total:
        raise DataError(f"{args.pictures}: no picture can be read")
    return total, right, answers, failed
