"""Who may import whom, read from the source: docs/architecture.md says why."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bitinfer

PACKAGE = Path(bitinfer.__file__).parent

_GROUND = {"errors", "_version", "files", "names"}
_DATA = _GROUND | {"bits", "numerics", "graph", "model"}
_FILES = _DATA | {"modelfile"}
_RUNNING = _FILES | {"plan", "backends", "vision"}

MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "files": {"errors"},
    "names": {"errors", "files"},
    "labels": {"errors", "files"},
    "npy": set(),
    "bits": _GROUND,
    "numerics": _GROUND | {"bits"},
    "graph": _GROUND | {"bits", "numerics"},
    "model": _GROUND | {"bits", "numerics", "graph"},
    "modelfile": _DATA,
    "plan": _GROUND | {"bits", "numerics", "graph"},
    "backends": _GROUND | {"bits", "numerics", "graph", "plan"},
    "vision": _DATA | {"npy"},
    "integer_ends": _DATA,
    "profiling": _RUNNING,
    "session": _RUNNING | {"profiling"},
    "export_c": _RUNNING,
    "doctor": _RUNNING,
    "documents": _RUNNING | {"profiling", "session", "doctor"},
    "functional": _RUNNING,
    "datasets": _DATA | {"vision", "npy"},
    "zoo": _DATA,
    "importers": _DATA | {"zoo"},
    "verify": _RUNNING | {"importers", "report"},
    "from_torch": _FILES | {"importers"},
    "report": _GROUND,
    "train": _FILES | {"zoo", "importers", "datasets", "vision"},
    "serve": _RUNNING | {"profiling", "session", "documents"},
    "batch": _RUNNING | {"session"},
    "ray": _RUNNING | {"session", "serve", "batch"},
    "cli": _RUNNING
    | {"session", "profiling", "documents", "functional", "datasets", "zoo", "importers"}
    | {"report", "integer_ends", "labels", "train", "serve", "verify", "batch", "ray"}
    | {"export_c", "doctor"},
    "__main__": {"cli"},
    "__init__": {"_version", "errors", "bits", "functional", "session", "from_torch"},
}  # fmt: skip
"""The parts of the package, each with the parts that it may import."""

LIGHT = {"cli", "errors", "files", "names", "_version"}
"""What every command may import before it knows that it has anything to do."""

ONLY_IN = {
    "torch": {"train", "from_torch.py", "verify/by_torch.py"},
    "numba": {"backends/numba"},
    "llvmlite": {"backends/numba"},
    "onnx": {"importers"},
    "h5py": {"importers"},
    "cffi": {"backends/native"},
    "rich": {"cli"},
    "starlette": {"serve", "ray.py"},
    "uvicorn": {"serve"},
    "pyarrow": {"batch.py"},
    "ray": {"ray.py"},
    "safetensors": {"modelfile.py", "train/recipes/teacher.py"},
}
"""Packages that appear in one place alone."""


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the full name of everything that is imported, names within modules included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path, *, module_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if module_level:
        tree.body = [node for node in tree.body if _runs_on_import(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                node.body = [] if isinstance(node.body, list) else ast.Constant(None)
    package = ".".join(("bitinfer", *path.relative_to(PACKAGE).parts[:-1]))
    return set(imports(tree, package))


def _runs_on_import(node: ast.stmt) -> bool:
    return not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


def test_every_part_has_a_place_in_the_order() -> None:
    assert {part_of(path) for path in sources()} <= set(MAY_IMPORT)


def test_the_order_has_no_cycle() -> None:
    done: set[str] = set()
    while left := set(MAY_IMPORT) - done:
        free = {part for part in left if MAY_IMPORT[part] <= done}
        assert free, f"a cycle among {left}"
        done |= free


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it(path: Path) -> None:
    part = part_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "bitinfer":
            other = rest.partition(".")[0]
            if other == "__version__":
                other = "_version"
            allowed = MAY_IMPORT[part] | {part}
            assert other in allowed, f"{path.name} imports {name}, {part} may import {allowed}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_heavy_package_is_imported_in_one_place_alone(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    for name in imports_of(path):
        places = ONLY_IN.get(name.partition(".")[0])
        if places is not None:
            assert any(where == place or where.startswith(f"{place}/") for place in places), name


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda p: p.name)
def test_a_command_line_module_imports_the_standard_library_alone_when_imported(
    path: Path,
) -> None:
    for name in imports_of(path, module_level=True):
        top, _, rest = name.partition(".")
        ours = top == "bitinfer" and rest.partition(".")[0] in LIGHT
        assert ours or top in sys.stdlib_module_names, name


def test_errors_import_nothing() -> None:
    assert imports_of(PACKAGE / "errors.py") == {"__future__.annotations"}


def test_the_graph_and_the_file_know_no_backend() -> None:
    for part in ("graph", "model", "modelfile", "zoo", "importers"):
        assert not MAY_IMPORT[part] & {"plan", "backends", "session"}
