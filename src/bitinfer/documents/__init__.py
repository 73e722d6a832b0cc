"""Every JSON answer as a struct: what a command prints with ``--json``, and its JSON Schema.

Here is what the answers share; those on a model file are in models.py, those on something that runs
in runs.py.  A field that is not always there has the type ``UnsetType`` beside its own.  Fields may
be added without another ``SCHEMA_VERSION``, so no schema refuses fields that it does not know.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

SCHEMA_VERSION: Literal[1] = 1

Share = Annotated[float, Meta(ge=0, le=1, description="0 to 1")]
Milliseconds = Annotated[float, Meta(ge=0, description="milliseconds")]
Bytes = Annotated[int, Meta(ge=0, description="bytes")]
Count = Annotated[int, Meta(ge=0)]
Macs = Annotated[int, Meta(ge=0, description="multiply-accumulates of one sample, padded taps too")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="as sha256sum prints it")]
Shape = Annotated[
    tuple[int, ...], Meta(description="of one sample: height, width and channels, or a length")
]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """An object within an answer."""


class Answer(Part, frozen=True):
    """What every answer begins with."""

    schema_version: Literal[1]


class ModelFile(Part, frozen=True):
    """The model file, as it was named, and the SHA-256 of its bytes."""

    path: str
    sha256: Sha256


_HOMES = {
    "run": "runs.Run",
    "eval": "runs.Eval",
    "inspect": "models.Inspect",
    "bench": "runs.Bench",
    "profile": "runs.Profile",
    "info": "runs.Info",
    "verify": "verification.Verify",
    "zoo": "models.Zoo",
    "export-c": "models.ExportC",
    "doctor": "runs.Doctor",
}

COMMANDS = tuple(_HOMES)
"""Those that have ``--json``."""


def answer_of(command: str) -> type[Answer]:
    """Return the struct that a command prints with ``--json``."""
    module, _, name = _HOMES[command].partition(".")
    answer: type[Answer] = getattr(import_module(f"{__name__}.{module}"), name)
    return answer


def schema(command: str) -> dict[str, Any]:
    """Return the JSON Schema of what a command prints with ``--json``."""
    result = msgspec.json.schema(answer_of(command))
    for part in result["$defs"].values():
        part["description"] = inspect.cleandoc(part["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result}


def plain(answer: Part) -> dict[str, Any]:
    """Return an answer, or a part of one, as what the module json writes."""
    result: dict[str, Any] = msgspec.to_builtins(answer)
    return result
