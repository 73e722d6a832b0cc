"""Many pictures to a Parquet file: in order, and from where an interruption left off.

Inputs are cut into parts of a fixed number.  A part that is done is a file of its own in a folder
beside the result (``OUT.parquet.parts``), written whole or not at all; they are joined there, and
when all are, the folder goes.  Whoever computes parts, threads here or a cluster in ray.py, gives
them back in order.  What decides the bytes of a part is the part alone, so that a result that was
interrupted is the same file as one that was not.

Needs the extra ``batch`` (pyarrow).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bitinfer import files
from bitinfer.errors import (
    BitInferError,
    MissingExtraError,
    OutputError,
    UsageError,
)
from bitinfer.files import one_line

if TYPE_CHECKING:
    from bitinfer.session import Session

ROWS = 256
"""Inputs of a part, and rows of a group in the file."""

_PARTS_AHEAD = 2
"""Parts for each thread that may be under way or wait to be written."""
_MAX_JOB_BYTES = 1 << 20


class Row(NamedTuple):
    """What came of one input: ``error`` is empty, or the classes are."""

    input: str
    indices: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Input:
    """A picture by its path, or what is wrong with something that stands for none."""

    path: str
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many inputs were done and failed, and how many of them an earlier run had done."""

    done: int
    failed: int
    found: int


Part = Sequence[Input]
Compute = Callable[[Iterable[Part]], Iterator[list[Row]]]
"""Gives back the rows of each part, in order."""


def classify_row(session: Session, one: Input, top_k: int) -> Row:
    """Classify a picture; what is wrong with it becomes its row."""
    from bitinfer.session import require_finite

    if one.problem:
        return Row(one.path, error=one_line(one.problem, None))
    try:
        found = session.classify(one.path, top_k)
        require_finite(found, one.path)
    except BitInferError as error:
        return Row(one.path, error=one_line(error, None))
    # Lists, because a generator for each column of each picture takes as long as the rest of this.
    return Row(
        one.path,
        tuple([p.index for p in found]),
        tuple([p.label for p in found]),
        tuple([p.probability for p in found]),
    )


def threaded(session: Session, threads: int, top_k: int) -> Compute:
    """Return what computes parts with threads of this process."""

    def compute(parts: Iterable[Part]) -> Iterator[list[Row]]:
        stop = threading.Event()

        def classify(part: Part) -> list[Row]:
            return [classify_row(session, one, top_k) for one in part if not stop.is_set()]

        pool = ThreadPoolExecutor(threads, thread_name_prefix="bitinfer-batch")
        under_way: deque[Any] = deque()
        try:
            for part in parts:
                under_way.append(pool.submit(classify, part))
                if len(under_way) >= threads * _PARTS_AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    return compute


def run(
    inputs: Sequence[Input],
    output: str | os.PathLike[str],
    compute: Compute,
    *,
    session: Session,
    top_k: int,
    restart: bool = False,
    report: Callable[[int, int], None] = lambda done, failed: None,
) -> Outcome:
    """Classify pictures and write a Parquet file, going on where an earlier run has ended.

    The columns are ``input`` (string), ``index`` (int32), ``label`` (string) and ``probability``
    (float32) of the best class, ``indices``, ``labels`` and ``probabilities`` (lists) of the
    ``top_k`` best, and ``error`` (string); what an input does not have is null.  The metadata of
    the schema have the SHA-256 of the model, the backend and ``top_k``.  ``report`` is called with
    the numbers of inputs that are done, and of those that failed, after every part.

    Raises:
        UsageError: an earlier run that was interrupted was another one, unless ``restart``.
        OutputError: the result cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    target = Path(os.path.realpath(output))
    folder = target.with_name(f"{target.name}.parts")
    metadata = {
        "bitinfer.model_sha256": session.model.sha256,
        "bitinfer.backend": session.backend,
        "bitinfer.top_k": str(top_k),
    }
    files.check_writable(output)
    try:
        if restart and folder.is_dir():
            shutil.rmtree(folder)
        _begin(folder, {**metadata, "inputs": _digest(inputs), "rows": ROWS})
        parts = [inputs[i : i + ROWS] for i in range(0, len(inputs), ROWS)]
        missing = dict.fromkeys(i for i in range(len(parts)) if not _part(folder, i).exists())
        found = len(inputs) - sum(len(parts[i]) for i in missing)
        schema = _schema(pyarrow, metadata)
        computed = iter(compute(parts[i] for i in missing))
        joined = folder / "joined.parquet"
        done, failed = found, 0
        report(done, failed)
        # Joined while further parts are computed: what is done at the end, no thread helps with.
        with pyarrow.parquet.ParquetWriter(joined, schema, compression="zstd") as writer:
            for i, part in enumerate(parts):
                if i in missing:
                    _write_part(pyarrow, schema, _part(folder, i), next(computed))
                    done += len(part)
                failed += _join(pyarrow, writer, _part(folder, i))
                report(done, failed)
        with joined.open("rb") as file:
            os.fsync(file.fileno())
        joined.replace(target)
        shutil.rmtree(folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {os.fspath(output)}: {error.strerror or error}") from error
    return Outcome(done - failed, failed, found)


def _digest(inputs: Sequence[Input]) -> str:
    """Return what differs when an input is another one, or another file has its name."""
    digest = hashlib.sha256()
    for one in inputs:
        try:
            stat = os.stat(one.path)  # noqa: PTH116 - ten thousand Paths take time
            size, changed = stat.st_size, stat.st_mtime_ns
        except (OSError, ValueError):
            size, changed = -1, -1
        digest.update(f"{one.path}\0{size} {changed}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _begin(folder: Path, job: dict[str, Any]) -> None:
    """Make the folder of the parts, or see that it is of the same job."""
    note = folder / "job.json"
    if not folder.is_dir():
        folder.mkdir()
    elif note.exists():
        text = files.read_regular(note, _MAX_JOB_BYTES, error=OutputError)
        try:
            earlier = json.loads(text)
        except ValueError:
            earlier = None
        if not isinstance(earlier, dict):
            raise UsageError(f"{note}: is not what a batch leaves there; see --restart")
        if different := sorted(key for key in job if earlier.get(key) != job[key]):
            names = ", ".join(key.removeprefix("bitinfer.") for key in different)
            raise UsageError(
                f"{folder}: is of an interrupted batch with other {names}; give --restart to begin "
                "anew, or another output"
            )
        return
    elif any(folder.iterdir()):
        raise UsageError(f"{folder}: is in the way, and is not what a batch leaves there")
    files.write_atomically(note, json.dumps(job, indent=1).encode())


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.arrow"


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MissingExtraError(
            "Parquet files need pyarrow, which is not installed", "batch"
        ) from None
    return pa


def _schema(pyarrow: Any, metadata: dict[str, str]) -> Any:
    return pyarrow.schema(
        [
            ("input", pyarrow.string()),
            ("index", pyarrow.int32()),
            ("label", pyarrow.string()),
            ("probability", pyarrow.float32()),
            ("indices", pyarrow.list_(pyarrow.int32())),
            ("labels", pyarrow.list_(pyarrow.string())),
            ("probabilities", pyarrow.list_(pyarrow.float32())),
            ("error", pyarrow.string()),
        ],
        metadata=metadata,
    )


def _write_part(pyarrow: Any, schema: Any, path: Path, rows: Sequence[Row]) -> None:
    good = [not row.error for row in rows]
    columns = {
        # A file name may hold bytes that are no UTF-8.
        "input": [row.input.encode("utf-8", "backslashreplace").decode() for row in rows],
        "index": [row.indices[0] if row.indices else None for row in rows],
        "label": [row.labels[0] if row.labels else None for row in rows],
        "probability": [row.probabilities[0] if row.probabilities else None for row in rows],
        "indices": [row.indices if ok else None for row, ok in zip(rows, good, strict=True)],
        "labels": [row.labels if ok else None for row, ok in zip(rows, good, strict=True)],
        "probabilities": [
            row.probabilities if ok else None for row, ok in zip(rows, good, strict=True)
        ],
        "error": [row.error or None for row in rows],
    }
    table = pyarrow.Table.from_pydict(columns, schema=schema)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)
    files.write_atomically(path, sink.getvalue().to_pybytes())


def _join(pyarrow: Any, writer: Any, path: Path) -> int:
    """Append a part to the result; return how many of its inputs failed."""
    with pyarrow.memory_map(os.fspath(path)) as source:
        table = pyarrow.ipc.open_file(source).read_all()
        writer.write_table(table)
        return len(table) - int(table.column("error").null_count)
