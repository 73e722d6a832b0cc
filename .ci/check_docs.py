"""Checks that the documents say what is so: ``python .ci/check_docs.py`` in the checkout.

Links lead to files and headings that exist; the examples of README and the index print what is
shown; the Python blocks of the other pages run; tables and lists are those of the code; what is
made from code is up to date, and is made so first with ``--write``.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import api_page
import speed_picture
import zoo_table
from doc_tables import wrong_tables

ROOT = Path(__file__).parents[1]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "index.md"
API = ROOT / "docs" / "api.md"


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


def block(page: Path, kind: str, name: str) -> str:
    """Return the code block of a page below the mark ``<!-- kind: name -->``."""
    mark = rf"<!-- {kind}: {name} -->\n```\w*\n(.*?)```"
    found = re.findall(mark, page.read_text(), re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"{page.name}: {len(found)} blocks are marked '{kind}: {name}', wanted 1")
    return str(found[0])


def wrong_output() -> Iterator[str]:
    """Run the examples of README and the index; yield what they print, unless it is shown so."""
    code = block(INDEX, "python", "example")
    if (lines := len([line for line in code.splitlines() if line.strip()])) > 10:
        yield f"index.md: the example has {lines} lines, wanted at most 10"
    if (printed := output_of("-c", code)) != block(INDEX, "output", "example"):
        yield f"index.md: the Python example prints\n{printed}"
    _, _, arguments = block(README, "command", "run").partition(".venv/bin/bitinfer ")
    printed = output_of("-m", "bitinfer", *arguments.split())
    if without_times(printed) != without_times(block(README, "output", "run")):
        yield f"README.md: the command prints\n{printed}"


def output_of(*arguments: str) -> str:
    """Return what Python prints, errors included, when it is called with ``arguments``."""
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def without_times(text: str) -> str:
    """Return ``text`` without what differs from machine to machine: times, the backend."""
    text = re.sub(r"\d+\.\d+ ms", "... ms", text)
    return re.sub(r"\| [\w:]+$", "| ...", text, flags=re.MULTILINE)


def wrong_blocks() -> Iterator[str]:
    """Run the Python blocks of all pages but README, in a folder with a model file."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "examples" / "lenet5.bin", Path(folder, "model.bin"))
        Path(folder, "examples").symlink_to(ROOT / "examples")
        for page in PAGES:
            if page in (README, API):
                continue
            text = page.read_text()
            for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
                line = text.count("\n", 0, found.start()) + 1
                if problem := failure_of(found[1], folder):
                    yield f"{page.name}:{line}: the Python block fails: {problem}"


def failure_of(code: str, folder: str) -> str:
    """Run a block, or what it shows to be typed at a prompt; return what is wrong, or nothing."""
    with contextlib.chdir(folder), io.StringIO() as report:
        try:
            if not code.startswith(">>>"):
                with contextlib.redirect_stdout(report):
                    exec(code, {})
                return ""
            test = doctest.DocTestParser().get_doctest(code, {}, "block", None, 0)
            doctest.DocTestRunner(verbose=False).run(test, out=report.write)
            return report.getvalue().strip()
        except Exception as error:  # whatever a block raises is its own fault
            return f"{type(error).__name__}: {error}"


def wrong_json() -> Iterator[str]:
    """Compare the document that command-line.md shows with one that ``run`` prints."""
    text = (ROOT / "docs" / "command-line.md").read_text()
    shown = json.loads(re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0])
    inputs = [result["input"] for result in shown["results"]]
    arguments = [shown["model"]["path"], *inputs, "--json", "-k", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "bitinfer", "run", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        yield f"command-line.md: run --json prints nothing: {done.stderr.strip()}"
    elif shape_of(json.loads(done.stdout)) != shape_of(shown):
        yield f"command-line.md: run --json has other fields; it prints\n{done.stdout}"


def shape_of(value: Any) -> Any:
    """Return a JSON value with types in place of its texts and numbers."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    return type(value).__name__


def generated() -> Iterator[tuple[Path, str]]:
    """Yield the pages that are made from code, whole or in part, as they should be."""
    yield API, api_page.page()
    yield speed_picture.PICTURE, speed_picture.picture()
    zoo = ROOT / "docs" / "zoo.md"
    head = re.escape(zoo_table.HEAD)
    yield zoo, re.sub(rf"{head}\n(?:\|.*\n)*", lambda _: zoo_table.table() + "\n", zoo.read_text())


def outdated() -> Iterator[str]:
    """Yield the pages that are not as they would be made now."""
    for path, text in generated():
        if not path.exists() or path.read_text() != text:
            yield f"{path.name}: not what the code gives; run ./dev docs"


def write_generated() -> None:
    """Bring the pages that are made from code up to date."""
    for path, text in generated():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write_generated()
    problems = [
        *broken_links(),
        *look_alikes(),
        *wrong_output(),
        *wrong_blocks(),
        *wrong_json(),
        *wrong_tables(),
        *outdated(),
    ]
    print("\n".join(problems) or f"{len(PAGES)} pages are right")
    sys.exit(1 if problems else 0)
