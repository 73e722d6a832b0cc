"""``bitinfer eval``: measures the accuracy of a model on labelled pictures."""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from typing import TYPE_CHECKING, Any

from bitinfer.cli import _common
from bitinfer.cli._terminal import note, printable, progress, report, show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitinfer.datasets import Dataset
    from bitinfer.documents.runs import Eval
    from bitinfer.errors import ImageError
    from bitinfer.session import Session

_BATCH = 16
_MAX_CONFUSION_CLASSES = 4096
_Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

_RULES = {
    "labels": "folders bear the model's labels",
    "numbers": "folders bear the numbers of the classes, from 0",
    "numbers from 1": "folders bear the numbers of the classes, from 1",
    "order": "folders sorted as texts are the classes in order",
}

_EPILOG = """data:
  a directory with MNIST's t10k-images-idx3-ubyte[.gz] and t10k-labels-idx1-ubyte[.gz], or such
  an images file with its labels file beside it; an .npz with images (N,H,W,C) or (N,H,W) uint8
  and labels (N,); CIFAR's test_batch or test_batch.bin (CIFAR-100: test, test.bin) or the
  directory with it; a root of torchvision's MNIST or CIFAR; or a directory with one folder of
  pictures per class, alone or in a part of its own (val or test beside train)

names of folders (--classes):
  labels   the model's labels
  numbers  numbers of the classes: from 0, or from 1 if that of the last class is among them
  order    as many as classes; sorted as texts they are the classes in order, as torchvision's
           ImageFolder counts them (10 before 2)
  auto     the first of these that fits; the output says which one

Pictures that cannot be read are reported and not counted; the exit code is then 5. Files in the
folders that are no pictures are passed over, counted and named.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command and its arguments."""
    parser = subparsers.add_parser(
        "eval",
        help="measure the accuracy on labelled pictures",
        description="Measure top-1 (with its 95 % Wilson interval) and top-5 accuracy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="model file")
    parser.add_argument("data", metavar="DATA", help="labelled pictures")
    parser.add_argument(
        "--limit", type=_common.positive, metavar="N", help="use only the first N pictures"
    )
    parser.add_argument(
        "--confusion",
        metavar="FILE",
        help="write the confusion matrix as CSV: a row per true class, a column per predicted one",
    )
    parser.add_argument(
        "--classes",
        choices=("auto", "labels", "numbers", "order"),
        default="auto",
        help="how names of folders are classes (default: auto; see below)",
    )
    _common.add_ground(parser)
    _common.add_threads(parser)
    _common.add_backend(parser)
    _common.add_json(parser, "eval")
    _common.add_quiet(parser)


class _Score:
    """Counts of right and wrong answers."""

    def __init__(self, classes: int, *, confusion: bool) -> None:
        import numpy as np

        self.total = self.top1 = self.top5 = 0
        self.confusion = np.zeros((classes, classes), np.int64) if confusion else None

    def add(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Count a batch: outputs (n, classes), labels (n,).  Of equal scores the first wins."""
        import numpy as np

        from bitinfer.errors import BitInferError

        if not np.isfinite(outputs).all():
            raise BitInferError("the network's output is not finite; its values overflow")
        order = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
        self.total += len(labels)
        self.top1 += int(np.count_nonzero(order[:, 0] == labels))
        self.top5 += int(np.count_nonzero((order == labels[:, None]).any(axis=1)))
        if self.confusion is not None:
            np.add.at(self.confusion, (labels, order[:, 0]), 1)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the figures, and return the exit code."""
    from msgspec import UNSET

    from bitinfer import datasets, files
    from bitinfer.documents import SCHEMA_VERSION, runs
    from bitinfer.errors import DataError, OutputError

    session = _common.load_session(args)
    classes = math.prod(session.outputs[0].shape)
    if args.confusion is not None:
        if classes > _MAX_CONFUSION_CLASSES:
            raise OutputError(
                f"--confusion: {classes} classes, at most {_MAX_CONFUSION_CLASSES} make a table"
            )
        files.check_outputs({"--confusion": args.confusion}, (args.model, args.data))
    failed = 0

    def count_failure(error: ImageError) -> None:
        nonlocal failed
        failed += 1
        report(str(error))

    data = datasets.load(
        args.data,
        session.model,
        batch_size=_BATCH,
        limit=args.limit,
        classes=args.classes,
        on_error=count_failure,
    )
    if not args.quiet:
        _common.note_passed_over(data.passed_over)
        for text in data.notes:
            note(text)
    session.bind(pixels=True)  # what is done once is not part of a picture's time
    score = _Score(classes, confusion=args.confusion is not None)
    with progress(data.total, quiet=args.quiet) as advance:
        seconds = _evaluate(session, data, score, advance)
    if not score.total:
        raise DataError(f"{args.data}: none of its {failed} pictures can be read")
    if score.confusion is not None:
        table = _confusion_csv(score.confusion, session.model.labels)
        files.write_atomically(args.confusion, table)
    answer = runs.Eval(
        schema_version=SCHEMA_VERSION,
        model=_common.model_file(args.model),
        backend=session.backend,
        data=runs.EvaluationData(
            path=data.path,
            kind=data.kind,
            classes=data.classes or UNSET,
            passed_over=data.passed_over if data.classes else UNSET,
        ),
        top1=score.top1 / score.total,
        top1_interval=wilson_interval(score.top1, score.total),
        top5=score.top5 / score.total,
        correct=score.top1,
        correct_top5=score.top5,
        total=score.total,
        failed=failed,
        ms_per_image=round(1000 * seconds / score.total, 4),
    )
    if args.json:
        _common.print_json(answer)
    else:
        show([[(line, "")] for line in _as_text(answer, classes)])
    return 5 if failed else 0


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927, formula of the score interval)."""
    p = successes / total
    z2 = _Z95 * _Z95
    centre = p + z2 / (2 * total)
    spread = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    scale = 1 + z2 / total
    # The ends 0 and 1 are exact where nothing or everything is right; rounding must not pass them.
    return (
        0.0 if successes == 0 else (centre - spread) / scale,
        1.0 if successes == total else (centre + spread) / scale,
    )


def _evaluate(session: Session, data: Dataset, score: _Score, advance: Any) -> float:
    """Run all batches and return the seconds spent in inference."""
    seconds = 0.0
    for images, labels in data:
        start = time.perf_counter()
        result = session.run(images)
        seconds += time.perf_counter() - start
        score.add(_common.main_output(session, result).reshape(len(labels), -1), labels)
        advance(score.total, f"top-1 {100 * score.top1 / score.total:.2f} %")
    return seconds


def _confusion_csv(counts: NDArray[np.int64], labels: tuple[str, ...]) -> bytes:
    names = labels or tuple(str(i) for i in range(len(counts)))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["true \\ predicted", *names])
    for name, row in zip(names, counts.tolist(), strict=True):
        writer.writerow([name, *row])
    return text.getvalue().encode()


def _as_text(answer: Eval, classes: int) -> list[str]:
    low, high = answer.top1_interval
    lines = [
        f"top-1    {100 * answer.top1:6.2f} %  {answer.correct} of {answer.total}, "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f} %"
    ]
    if classes > 5:
        lines.append(
            f"top-5    {100 * answer.top5:6.2f} %  {answer.correct_top5} of {answer.total}"
        )
    if answer.failed:
        lines.append(f"failed   {answer.failed} pictures cannot be read and are not counted")
    lines += [
        f"speed    {answer.ms_per_image:.3f} ms inference an image, {answer.backend}",
        f"data     {printable(answer.data.path)} ({answer.data.kind})",
    ]
    if answer.data.classes:
        lines.append(f"classes  {_RULES[answer.data.classes]}")
    if answer.data.passed_over:
        lines.append(
            f"others   {len(answer.data.passed_over)} files are no pictures of a kind that is read"
        )
    return lines
