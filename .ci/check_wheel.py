"""Checks that a wheel is fit for release: ``python .ci/check_wheel.py WHEEL``.

A failed compilation gives a wheel that looks like any other, with a platform in its name and no
extension in it.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

EXTENSION = "bitinfer/backends/native/_native.abi3.so"


CSRC = Path(__file__).resolve().parents[1] / "csrc"
MODELS = CSRC.parent / "src" / "bitinfer" / "zoo" / "models"


def _c_sources() -> list[Path]:
    return [path for path in CSRC.rglob("*") if path.suffix in (".c", ".h", ".inc")]


def main(path: Path) -> str:
    """Return what is wrong with the wheel at ``path``, or nothing."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    extensions = [n for n in names if n.endswith((".so", ".pyd", ".dylib"))]
    strangers = [n for n in names if not n.startswith(("bitinfer/", "bitinfer-"))]
    if extensions != [EXTENSION]:
        return f"holds the extensions {extensions}, wanted {EXTENSION} alone"
    if "-cp311-abi3-" not in path.name:
        return "is not tagged cp311-abi3"
    sources = {f"bitinfer/{path.relative_to(CSRC.parent).as_posix()}" for path in _c_sources()}
    if {n for n in names if n.startswith("bitinfer/csrc/")} != sources:
        return f"does not hold the C sources of {CSRC}, and those alone"
    models = {name for name in names if name.startswith("bitinfer/zoo/models/")}
    wanted = {f"bitinfer/zoo/models/{path.name}" for path in MODELS.iterdir()}
    if models != wanted:
        return f"holds the models {sorted(models)}, wanted {sorted(wanted)}"
    if "bitinfer/py.typed" not in names or strangers:
        return f"lacks py.typed, or holds files outside its package: {strangers}"
    return ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: check_wheel.py WHEEL")
    wheel = Path(sys.argv[1])
    problem = main(wheel)
    print(f"{wheel.name}: {problem or 'one extension, its sources, tagged cp311-abi3'}")
    sys.exit(1 if problem else 0)
