"""Compares the lists and tables of the documents with the code that they are about."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from bitinfer.cli._app import COMMANDS
from bitinfer.graph import passes
from bitinfer.graph.nodes import CLASSES

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "csrc" / "kernels"
_IN_EVERY_NODE = {"name", "input", "epilogue"}


def wrong_tables() -> Iterator[str]:
    """Yield what differs, and where to mend it."""
    yield from wrong_commands()
    yield from wrong_nodes()
    yield from wrong_passes()
    yield from wrong_kernels()
    yield from wrong_kernel_fields()


def text_of(name: str) -> str:
    """Return a page of docs/."""
    return (ROOT / "docs" / name).read_text()


def section(page: str, title: str) -> str | None:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else None


def rows(text: str, head: str) -> list[list[str]]:
    """Return the cells of the table whose first line is ``head``."""
    _, found, rest = text.partition(f"{head}\n|---")
    if not found:
        raise SystemExit(f"there is no table {head}")
    lines = rest.split("\n")[1:]
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    ]


def wrong_commands() -> Iterator[str]:
    """Compare commands and options, both ways."""
    page = text_of("command-line.md")
    listed = [
        re.findall(r"`([\w-]+)`", row[0])[0] for row in rows(page, "| command | what it does |")
    ]
    yield from different("command-line.md, the table of commands", listed, COMMANDS)
    common = section(page, "Common options") or ""
    for command in COMMANDS:
        commands = argparse.ArgumentParser().add_subparsers()
        import_module(f"bitinfer.cli.{command.replace('-', '_')}").add_parser(commands)
        part = section(page, command)
        if part is None:
            yield f"command-line.md: nothing on the command {command}; add a section"
            continue
        own: set[str] = set()
        for action in commands.choices[command]._actions:
            own.update(action.option_strings)
            if action.dest != "help":
                for option in action.option_strings or [str(action.metavar or action.dest)]:
                    if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", part + common):
                        yield f"command-line.md: nothing on {command} {option}; describe it"
        synopsis = "\n".join(re.findall(r"^    bitinfer .*$|^\| `-.*$", part, re.MULTILINE))
        for option in sorted(set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", synopsis)) - own):
            yield f"command-line.md: {command} has no {option}; take it out"


def wrong_nodes() -> Iterator[str]:
    """Compare the table of nodes with the node classes: fields and defaults."""
    head = "| `op` | further fields, default in brackets | input -> output |"
    table = {row[0].strip("`"): row[1] for row in rows(text_of("file-format.md"), head)}
    classes = {str(node.__struct_config__.tag): node for node in CLASSES}
    yield from different("file-format.md, the table of nodes", table, classes)
    for op in table.keys() & classes.keys():
        described = re.sub(r"as `\w+`", "", table[op])
        fields = {f.name: f for f in msgspec.structs.fields(classes[op])}
        names = re.findall(r"`([a-z_]+)`", described)
        where = f"file-format.md, the row of {op}"
        yield from different(where, names, fields.keys() - _IN_EVERY_NODE)
        for name, default in re.findall(r"`([a-z_]+)` \[(\[.*?\]|.*?)\]", described):
            if name in fields and json.loads(default) != _plain(fields[name].default):
                yield f"{where}: {name} has the default {fields[name].default!r}, not {default}"


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def wrong_passes() -> Iterator[str]:
    """Compare the table of passes with PASSES, order included."""
    listed = [
        row[0].strip("`") for row in rows(text_of("architecture.md"), "| pass | what it does |")
    ]
    if listed != list(passes.NAMES):
        yield from different("architecture.md, the table of passes", listed, passes.NAMES)
        if sorted(listed) == sorted(passes.NAMES):
            yield f"architecture.md: the passes run in the order {', '.join(passes.NAMES)}"


def kernel_lines() -> set[tuple[str, ...]]:
    """Return the arguments of the lines of kernels.inc."""
    text = (KERNELS / "kernels.inc").read_text()
    return {
        tuple(arguments.split(", "))
        for arguments in re.findall(r"^BI_KERNEL\(([\w, ]+)\)", text, re.MULTILINE)
    }


def wrong_kernels() -> Iterator[str]:
    """Compare the files of the binary convolution, and kernels that are named as examples."""
    listed = [
        name
        for row in rows(text_of("kernels.md"), "| file | for | how |")
        for name in re.findall(r"`([\w.]+)`", row[0])
    ]
    isas = {line[-1] for line in kernel_lines()}
    files = [
        path.name
        for path in sorted((KERNELS / "bconv2d").glob("*.c"))
        if path.stem.rpartition("_")[2] in isas
    ]
    yield from different("kernels.md, the table of files", listed, files)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for arguments in re.findall(r"BI_KERNEL\(([a-z][\w, ]+)\)", page.read_text()):
            if tuple(arguments.split(", ")) not in kernel_lines():
                yield f"{page.name}: BI_KERNEL({arguments}) is no line of kernels.inc"
        for name in re.findall(r"const bi_kernel bi_(\w+)", page.read_text()):
            if name not in {"_".join(line) for line in kernel_lines()}:
                yield f"{page.name}: bi_{name} is no kernel of kernels.inc"


def wrong_kernel_fields() -> Iterator[str]:
    """Compare the table of a kernel's parts with the struct bi_kernel."""
    struct = re.search(
        r"typedef struct bi_kernel \{(.*?)\} bi_kernel;",
        (KERNELS / "kernel.h").read_text(),
        re.DOTALL,
    )
    assert struct is not None, "kernel.h: there is no struct bi_kernel"
    code = re.sub(r"/\*.*?\*/", "", struct[1], flags=re.DOTALL)
    fields = re.findall(r"\(\*(\w+)\)|\b(\w+);", code)
    listed = [
        name
        for row in rows(text_of("adding-a-kernel.md"), "| function | duty |")
        for name in re.findall(r"`(\w+)`", row[0])
    ]
    names = [function or field for function, field in fields]
    yield from different("adding-a-kernel.md, the table of functions", listed, names)


def different(where: str, listed: Any, real: Any) -> Iterator[str]:
    """Say what a list has too much and too little."""
    if missing := sorted(set(real) - set(listed)):
        yield f"{where}: add {', '.join(missing)}"
    if strange := sorted(set(listed) - set(real)):
        yield f"{where}: take out {', '.join(strange)}, which the code does not have"
