"""What to say of a name that nothing bears."""

from __future__ import annotations

from collections.abc import Iterable

from bitinfer.errors import UnknownNameError
from bitinfer.files import one_line


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a ``name`` that is none of those ``known``.

    It names the one that was probably meant, else all of them.
    """
    return UnknownNameError(f"unknown {kind} '{one_line(name)}'; {suggest(name, known)}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" if one of the names is close, else the list of them."""
    import difflib  # only who has made a mistake waits for it

    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(known)}"
