"""Arguments and small parts that several commands share."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from bitinfer.cli._terminal import note, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitinfer.documents import Answer, ModelFile, Part
    from bitinfer.model import Model
    from bitinfer.session import Session

BACKENDS = ("auto", "native", "numba", "reference")

_NAMED_FILES = 10


class _PrintSchema(argparse.Action):
    """Prints the JSON Schema of a command's answer and ends, whatever else is there or missing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from bitinfer import documents

        print(json.dumps(documents.schema(str(self.const)), indent=2))
        parser.exit()


def add_json(parser: argparse.ArgumentParser, command: str) -> None:
    """Add ``--json`` and ``--json-schema``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--json-schema",
        action=_PrintSchema,
        nargs=0,
        const=command,
        help="print the JSON Schema of what --json prints, and do nothing else",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print results and fatal errors only"
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add ``--backend``."""
    parser.add_argument(
        "--backend",
        type=_backend,
        default="auto",
        metavar="NAME",
        help="auto (default), native, numba or reference; native:avx2 caps the instruction set of "
        "kernels, native:bconv2d=words forces a method ('bitinfer info' lists what is there)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    parser.add_argument(
        "--threads",
        type=count,
        default=1,
        metavar="N",
        help="threads of a call (default: 1; 0: as many as this process may use)",
    )


def add_ground(parser: argparse.ArgumentParser) -> None:
    """Add ``--ground`` and ``--invert``, which replace what the model file says."""
    parser.add_argument(
        "--ground",
        choices=("black", "white"),
        help="what transparent pixels lie on (default: as the model file says, mostly black)",
    )
    parser.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="whether to exchange dark and light, as for black ink on paper where the network "
        "learned white on black (default: as the model file says, mostly not)",
    )


def count(text: str) -> int:
    """Parse an integer of at least 0."""
    return _integer(text, 0)


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    return _integer(text, 1)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is not an integer of at least {least}"
        )
    return value


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file's bytes, as sha256sum prints it."""
    import hashlib

    with open(path, "rb") as file:  # noqa: PTH123 - a plain str
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_model(path: str) -> Model:
    """Load a model that takes pictures.

    Raises:
        ModelFileError: the model is rejected, or does not say how a picture becomes its input.
    """
    from bitinfer import modelfile, vision
    from bitinfer.errors import ModelFileError

    model = modelfile.load(path)
    if model.preprocessing is None:
        raise ModelFileError(f"{path}: {vision.describe_lack(model.graph.input.shape)}")
    return model


def load_session(args: argparse.Namespace) -> Session:
    """Load a model that takes pictures: the arguments are those of add_backend to add_ground.

    Raises:
        ModelFileError: as of :func:`picture_model`.
        BackendError: the backend is not available here, or not with so many threads.
    """
    import dataclasses

    import msgspec

    from bitinfer import session

    model = picture_model(args.model)
    asked = {"ground": args.ground, "invert": args.invert}
    changes = {name: value for name, value in asked.items() if value is not None}
    if changes and model.preprocessing is not None:
        preprocessing = msgspec.structs.replace(model.preprocessing, **changes)
        model = dataclasses.replace(model, preprocessing=preprocessing)
    return session.Session(model, args.backend, args.threads)


def note_passed_over(paths: Sequence[str]) -> None:
    """Say on stderr which files in folders are no pictures, if there are any."""
    if paths:
        more = ", ..." if len(paths) > _NAMED_FILES else ""
        names = ", ".join(printable(path, None) for path in paths[:_NAMED_FILES])
        note(
            f"passed over {len(paths)} {'files that are' if len(paths) > 1 else 'file that is'} "
            f"no picture of a kind that is read: {names}{more}"
        )


def main_output(session: Session, result: Any) -> Any:
    """Return the output that the labels belong to: the first."""
    return result[session.outputs[0].name] if isinstance(result, dict) else result


def model_file(path: str) -> ModelFile:
    """Return what an answer says of the model file."""
    from bitinfer import documents

    return documents.ModelFile(path=path, sha256=file_sha256(path))


def to_json(part: Part, indent: int | None = None) -> str:
    """Return an answer, or a part of one, as JSON; numbers that JSON does not have are an error."""
    from bitinfer import documents

    return json.dumps(documents.plain(part), indent=indent, allow_nan=False)


def print_json(answer: Answer) -> None:
    """Print an answer as JSON that people can read."""
    print(to_json(answer, indent=2))


def _backend(text: str) -> str:
    name, _, kernels = text.partition(":")
    if text not in BACKENDS and not (name == "native" and kernels):
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is none of {', '.join(BACKENDS)}, native:KERNELS"
        )
    return text
