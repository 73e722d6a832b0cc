"""csrc/: all of it compiles as one unit, and the kernel list, the objects and the files agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kernel_list import lines_of

CSRC = Path(__file__).parents[1] / "csrc"
pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="there are no C sources beside the tests")


def others(*compilers: str) -> list[object]:
    """Compilers that say the same as those of the default run, seconds later."""
    return [pytest.param(compiler, marks=pytest.mark.long) for compiler in compilers]


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc", *others("clang")])
def test_all_sources_compile_as_one_unit(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    unit = tmp_path / "all.c"
    unit.write_text("".join(f'#include "{path}"\n' for path in sorted(CSRC.rglob("*.c"))))
    flags = ["-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}"]
    done = subprocess.run([compiler, *flags, str(unit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def objects() -> list[str]:
    """Return the kernels that are defined in csrc/, as the files spell them out."""
    names = []
    for path in sorted(CSRC.rglob("*.c")):
        if path.name == "neon_layouts.c":  # the layouts of kernels that are listed elsewhere
            continue
        text, name = path.read_text(), None
        if own := re.search(r"#define BI_NAME\(operation\) bi_##operation##(\w+)", text):
            name = own[1]
        parts = [text]
        for part in parts:  # grows: what is included may include more
            parts += [
                (path.parent / included).read_text()
                for included in re.findall(r'#include "(\w+\.inc)"', part)
            ]
            names += re.findall(r"^const bi_kernel (bi_\w+) =", part, re.MULTILINE)
            for operation in re.findall(r"^const bi_kernel BI_NAME\((\w+)\) =", part, re.MULTILINE):
                assert name is not None, f"{path} includes a kernel and gives it no name"
                names.append(f"bi_{operation}{name}")
    return names


def test_every_kernel_is_a_line_of_the_list_and_every_line_a_kernel() -> None:
    lines = {*lines_of("x86_64"), *lines_of("aarch64")}
    listed = sorted("_".join(("bi", *line)) for line in lines)
    assert sorted(objects()) == listed


def test_a_poorer_version_stands_behind_the_richer_ones_of_its_method() -> None:
    order = re.search(r"BI_ISAS\(X\) (.*)", (CSRC / "kernels" / "isa.h").read_text())
    assert order is not None
    isas = re.findall(r"X\((\w+)\)", order[1])
    seen: dict[tuple[str, str], int] = {}
    for operation, method, isa in lines_of("x86_64"):
        rank = isas.index(isa)
        assert rank < seen.get((operation, method), len(isas)), (operation, method, isa)
        seen[operation, method] = rank


def test_no_kernel_names_another() -> None:
    defined = set(objects())
    for path in (*CSRC.rglob("*.c"), *CSRC.rglob("*.inc"), *CSRC.rglob("*.h")):
        if path.name == "neon_layouts.c":  # which says what kernels need
            continue
        for name in re.findall(r"\bbi_\w+", path.read_text()):
            own = f"const bi_kernel {name} ="
            assert name not in defined or own in path.read_text(), f"{path} speaks of {name}"


def test_the_needs_of_every_neon_kernel_are_known_on_every_cpu() -> None:
    lines = {*lines_of("aarch64")} - {*lines_of("other")}
    known = re.findall(
        r'{"(\w+)", "(\w+)", &\w+}', (CSRC / "neon_layouts.c").read_text(), re.MULTILINE
    )
    assert {(operation, method, "neon") for operation, method in known} == lines


@pytest.mark.parametrize(
    "compiler", ["gcc", "clang++", "aarch64-linux-gnu-gcc", *others("clang", "g++")]
)
def test_all_kernels_compile_as_one_unit_of_static_names_in_c_and_in_cpp(
    compiler: str, tmp_path: Path
) -> None:
    pytest.importorskip("bitinfer.backends.native._native", reason="the package export wants it")
    from bitinfer.export_c.amalgam import Sources

    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    sources = Sources(CSRC)
    lines = {*lines_of("x86_64"), *lines_of("aarch64")}
    text = sources.unit(sorted("_".join(("bi", *line)) for line in lines))
    is_cpp = compiler.endswith("++")
    unit = tmp_path / f"unit.{'cpp' if is_cpp else 'c'}"
    unit.write_text(sources.read("export/head.inc") + text)
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", *([] if is_cpp else ["-std=c11"])]
    done = subprocess.run([compiler, *flags, str(unit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    declared = set(sources.tables(text))
    for name in re.findall(r"^(?:const )?\w+ \**(bi_\w+)[(\[]", text, re.MULTILINE):
        assert name in declared, f"{name} is not static"
