"""Prints docs/api.md, made from docstrings: ``python .ci/api_page.py``; `./dev docs` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

MODULES = (
    "bitinfer",
    "bitinfer.errors",
    "bitinfer.graph",
    "bitinfer.model",
    "bitinfer.modelfile",
    "bitinfer.ray",
    "bitinfer.serve",
    "bitinfer.zoo",
)
"""Those that are meant for programs that use bitinfer."""

HEAD = """\
# Python interface

Made from the docstrings by `./dev docs`; edit those. Names that are not here may change without
notice."""

_KINDS = (inspect.isclass, inspect.isfunction)


def page() -> str:
    """Return the page in Markdown."""
    return "\n\n".join([HEAD, *(part for name in MODULES for part in _module(name))]) + "\n"


def _module(name: str) -> Iterator[str]:
    module = import_module(name)
    yield f"## {name}"
    yield _text(module.__doc__)
    for public in _names(module):
        value = getattr(module, public)
        if inspect.isclass(value):
            yield from _class(public, value)
        elif callable(value):
            yield f"### {public}"
            yield _function(public, value)


def _names(module: ModuleType) -> list[str]:
    """Return what a module says is public, else what it defines itself without an underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and any(is_kind(value) for is_kind in _KINDS)
        and value.__module__ == module.__name__
    ]


def _class(name: str, cls: type) -> Iterator[str]:
    yield f"### {name}"
    if issubclass(cls, BaseException):
        parents = ", ".join(parent.__name__ for parent in cls.__bases__)
        yield f"An error, of {parents}. {_text(cls.__doc__)}"
        return
    yield _function(name, cls)
    for member, value in vars(cls).items():
        if member.startswith("_"):
            continue
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(plain, property) and plain.__doc__:
            yield f"`{name}.{member}`: {_text(plain.__doc__)}"
        elif inspect.isfunction(plain) and plain.__doc__:
            yield _function(f"{name}.{member}", plain)


def _function(name: str, value: Any) -> str:
    """Return the signature and docstring of something that can be called."""
    try:
        signature = str(inspect.signature(value))
    except ValueError:
        signature = "(...)"
    signature = re.sub(r"\((?:self|cls)(?:, )?", "(", signature, count=1)
    signature = re.sub(r"(: |-> )(['\"])(.*?)\2", r"\1\3", signature)
    return f"```python\n{name}{signature}\n```\n\n{_text(value.__doc__)}"


def _text(doc: str | None) -> str:
    """Return a docstring in Markdown: its sentence, and the rest laid out as it is."""
    clean = inspect.cleandoc(doc or "").replace("\u00d7", "x")
    clean = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", clean).replace("``", "`")
    first, _, rest = clean.partition("\n\n")
    if not rest:
        return first
    return f"{first}\n\n```text\n{rest}\n```"


if __name__ == "__main__":
    print(page(), end="")
