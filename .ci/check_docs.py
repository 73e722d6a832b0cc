"""Checks that the documents say what is so: ``python .ci/check_docs.py`` in the checkout.

Links lead to files and headings that exist; README's example prints what README shows; every
command and option of the command line, and every operation of the model file, is described.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import zoo_table

from bitinfer.cli._app import COMMANDS
from bitinfer.graph.nodes import CLASSES

ROOT = Path(__file__).parents[1]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")))
README = ROOT / "README.md"


def broken_links() -> Iterator[str]:
    """Yield the relative links that lead nowhere."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target:
                continue
            path, _, heading = target.partition("#")
            file = (page.parent / path) if path else page
            if not file.exists():
                yield f"{page.name}: there is no {target}"
            elif heading and heading not in headings(file):
                yield f"{page.name}: there is no heading {target}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def look_alikes() -> Iterator[str]:
    """Yield characters beyond ASCII, which may not be what they look like."""
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), start=1):
            if strange := {c for c in line if ord(c) > 126 and c != "±"}:
                yield f"{page.name}:{number}: unexpected characters {sorted(strange)}"


def block(kind: str, name: str) -> str:
    """Return the code block of README below the mark ``<!-- kind: name -->``."""
    mark = rf"<!-- {kind}: {name} -->\n```\w*\n(.*?)```"
    found = re.findall(mark, README.read_text(), re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"README.md: {len(found)} blocks are marked '{kind}: {name}', wanted 1")
    return str(found[0])


def wrong_output() -> Iterator[str]:
    """Run README's examples; yield what they print, unless README shows just that."""
    code = block("python", "example")
    if (lines := len([line for line in code.splitlines() if line.strip()])) > 10:
        yield f"README.md: the example has {lines} lines, wanted at most 10"
    if (printed := output_of("-c", code)) != block("output", "example"):
        yield f"README.md: the Python example prints\n{printed}"
    _, _, arguments = block("command", "run").partition(".venv/bin/bitinfer ")
    printed = output_of("-m", "bitinfer", *arguments.split())
    if without_times(printed) != without_times(block("output", "run")):
        yield f"README.md: the command prints\n{printed}"


def wrong_zoo() -> Iterator[str]:
    """Say so if the table of architectures is not what the zoo gives."""
    if zoo_table.table() not in (ROOT / "docs/zoo.md").read_text():
        yield "docs/zoo.md: the table is not what python .ci/zoo_table.py prints"


def output_of(*arguments: str) -> str:
    """Return what Python prints, errors included, when it is called with ``arguments``."""
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def without_times(text: str) -> str:
    """Return ``text`` without what differs from machine to machine: times, the backend."""
    text = re.sub(r"\d+\.\d+ ms", "... ms", text)
    return re.sub(r"\| [\w:]+$", "| ...", text, flags=re.MULTILINE)


def undescribed() -> Iterator[str]:
    """Yield the commands, options and operations that no page describes."""
    page = (ROOT / "docs" / "command-line.md").read_text()
    for command in COMMANDS:
        module = import_module(f"bitinfer.cli.{command}")
        commands = argparse.ArgumentParser().add_subparsers()
        module.add_parser(commands)
        section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        if section is None:
            yield f"command-line.md: nothing on the command {command}"
            continue
        common = re.search(r"^## Common options\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
        described = section[1] + (common[1] if common else "")
        for action in commands.choices[command]._actions:
            if action.dest != "help":
                for option in action.option_strings or [str(action.metavar or action.dest)]:
                    if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", described):
                        yield f"command-line.md: nothing on {command} {option}"
    page = (ROOT / "docs" / "file-format.md").read_text()
    for node in CLASSES:
        if f"\n| `{node.__struct_config__.tag}` |" not in page:
            yield f"file-format.md: nothing on the operation {node.__struct_config__.tag}"


if __name__ == "__main__":
    problems = [
        *broken_links(),
        *look_alikes(),
        *wrong_output(),
        *undescribed(),
        *wrong_zoo(),
    ]
    print("\n".join(problems) or f"{len(PAGES)} pages are right")
    sys.exit(1 if problems else 0)
