"""Arguments and small parts that several commands share."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from bitinfer.cli._terminal import printable

if TYPE_CHECKING:
    from bitinfer.session import Session

SCHEMA_VERSION = 1
"""Of all JSON that the commands print."""

BACKENDS = ("auto", "native", "numba", "reference")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


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


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not an integer of at least 1")
    return value


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file's bytes, as sha256sum prints it."""
    import hashlib

    with open(path, "rb") as file:  # noqa: PTH123 - a plain str
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_session(path: str, backend: str) -> Session:
    """Load a model that takes pictures.

    Raises:
        ModelFileError: the model is rejected, or does not say how a picture becomes its input.
        BackendError: the backend is not available here.
    """
    from bitinfer import session, vision
    from bitinfer.errors import ModelFileError

    loaded = session.load(path, backend)
    if loaded.model.preprocessing is None:
        raise ModelFileError(f"{path}: {vision.describe_lack(loaded.inputs[0].shape)}")
    return loaded


def main_output(session: Session, result: Any) -> Any:
    """Return the output that the labels belong to: the first."""
    return result[session.outputs[0].name] if isinstance(result, dict) else result


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document; numbers that JSON does not have are an error."""
    print(json.dumps(document, indent=2, allow_nan=False))


def _backend(text: str) -> str:
    name, _, kernels = text.partition(":")
    if text not in BACKENDS and not (name == "native" and kernels):
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is none of {', '.join(BACKENDS)}, native:KERNELS"
        )
    return text
