"""csrc/ as one unit: the files that define some kernels and what they call, every name static.

Includes are replaced by what they include: headers once, ``.inc`` files each time.  The text is
C++, too: what C++ reserves is renamed, and ``void *``, which only C converts to others, becomes
``bi_any`` (csrc/export/head.inc).  This relies on the layout that clang-format gives csrc/: what is
at file scope, and nothing else, begins in the first column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#include "([^"]+)".*$|^#if (.*)$', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(
    r"^((?:(?!static|typedef|extern|enum|struct|union|return|else|inline)\w+ )+\*?)(bi_\w+)\(",
    re.MULTILINE,
)
_OBJECT = re.compile(r"^const (\w+) (bi_\w+|BI_NAME\(\w+\))((?:\[\w+\])*)(?=[^;=]*=)", re.MULTILINE)
_EXTERN = re.compile(r"^extern const \w+ (bi_\w+)[^;(]*;\n", re.MULTILINE)
_STATIC_MACRO = re.compile(r"^#define (\w+) .*\bstatic\b", re.MULTILINE)
_PASTED = re.compile(r"#define BI_NAME\(operation\) (bi_##operation##\w+)")
_NAME = re.compile(r"\bbi_\w+")
_RESERVED = re.compile(r"\b(class|new|this|template|operator|private|public|not|and|or|try)\b")
_POINTER = re.compile(r"\b(const )?void \*(const )?")
_RUNTIME = ("clock.c", "dispatch.c", "execute.c", "neon_layouts.c", "threads.c")
"""Files at the top of csrc/ that serve the library alone: csrc/export/ has what exports need."""


class Sources:
    """The C sources in a folder, and which of them define what."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._texts: dict[Path, str] = {}
        self._defined_in: dict[str, Path] = {}
        self._used_by: dict[Path, set[str]] = {}
        for path in sorted(self._folder.rglob("*.c")):
            if path.parent == self._folder and path.name in _RUNTIME:
                continue
            text = self._expand(path, set())
            self._used_by[path] = _used(text)
            self._defined_in |= dict.fromkeys(_defined(text), path)

    def read(self, name: str) -> str:
        """Return the text of one file, as it is."""
        return self._read(self._folder / name)

    def unit(self, names: Iterable[str], after: str = "") -> str:
        """Return the text of all files that define these names, and what those need.

        ``after`` names a file that stands behind them.

        Raises:
            KeyError: no file defines one of the names.
        """
        files = [*self._needed(names), *([self._folder / after] if after else [])]
        included: set[tuple[Path, str]] = set()
        text = "\n".join(self._expand(path, included) for path in files)
        return _as_static(_as_c_and_cpp(text))

    @staticmethod
    def tables(unit: str) -> list[str]:
        """Return the names in a unit that the linker still sees: tables that are declared first."""
        return list(dict.fromkeys(_EXTERN.findall(unit)))

    def _needed(self, names: Iterable[str]) -> list[Path]:
        """Return the files, those that are called before those that call them."""
        done: dict[Path, None] = {}
        under_way: set[Path] = set()

        def visit(path: Path) -> None:
            if path in under_way:
                return
            under_way.add(path)
            for name in sorted(self._used_by[path] & self._defined_in.keys()):
                visit(self._defined_in[name])
            done[path] = None

        for name in names:
            visit(self._defined_in[name])
        return list(done)

    def _expand(self, path: Path, included: set[tuple[Path, str]], where: str = "") -> str:
        """Return a file with what it includes in place; a header that is there already is not.

        ``where`` is the last #if before it, apart from a header's guard: what stands under the
        condition of one CPU is not there for another.
        """
        path = path.resolve()
        if path.suffix != ".inc":
            if included & {(path, ""), (path, where)}:
                return ""
            included.add((path, where))
        condition = where

        def replace(match: re.Match[str]) -> str:
            nonlocal condition
            if match[1] is None:
                condition = where or match[2]
                return match[0]
            beside = path.parent / match[1]
            found = beside if beside.is_file() else self._folder / match[1]
            return self._expand(found, included, condition)

        return _INCLUDE.sub(replace, self._read(path))

    def _read(self, path: Path) -> str:
        if path not in self._texts:
            self._texts[path] = path.read_text(encoding="utf-8")
        return self._texts[path]


def _defined(text: str) -> Iterator[str]:
    """Yield the functions and objects that a unit defines for others."""
    code = _COMMENT.sub("", text)
    for match in _FUNCTION.finditer(code):
        if code[_closing(code, match.end()) :].lstrip().startswith("{"):
            yield match[2]
    pasted = _PASTED.search(code)
    for match in _OBJECT.finditer(code):
        name = match[2]
        if name.startswith("BI_NAME"):
            assert pasted is not None, "a kernel is included and given no name"
            name = pasted[1].replace("##operation##", name[len("BI_NAME(") : -1])
        yield name


def _used(text: str) -> set[str]:
    """Return the names in a unit, prototypes aside."""
    code = _EXTERN.sub("", _COMMENT.sub("", text))
    parts, end = [], 0
    for match in _FUNCTION.finditer(code):
        closing = _closing(code, match.end())
        if code[closing:].lstrip().startswith(";"):
            parts.append(code[end : match.start()])
            end = closing
    return set(_NAME.findall("".join([*parts, code[end:]])))


def _closing(code: str, start: int) -> int:
    """Return where the bracket that was opened just before ``start`` has been closed."""
    depth = 1
    for end in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        if depth == 0:
            return end + 1
    raise ValueError("a bracket is not closed")


def _as_static(text: str) -> str:
    """Give functions and objects at file scope internal linkage, but for tables declared first."""
    declared = set(_EXTERN.findall(text))
    inlines = set(_STATIC_MACRO.findall(text))

    def replace_function(match: re.Match[str]) -> str:
        return match[0] if inlines & set(match[1].split()) else f"static {match[0]}"

    text = _FUNCTION.sub(replace_function, text)

    def replace(match: re.Match[str]) -> str:
        return match[0] if match[2] in declared else f"static {match[0]}"

    return _OBJECT.sub(replace, text)


def _as_c_and_cpp(text: str) -> str:
    """Rename what C++ reserves and what only C converts; comments and strings stay as they are."""
    parts, end = [], 0
    for match in re.finditer(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', text, re.DOTALL):
        parts += [_code_as_c_and_cpp(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, _code_as_c_and_cpp(text[end:])])


def _code_as_c_and_cpp(code: str) -> str:
    code = _RESERVED.sub(r"\1_", code)
    return _POINTER.sub(lambda m: f"bi_{'const_' if m[1] else ''}any {m[2] or ''}", code)
