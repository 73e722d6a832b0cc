"""A kind of activation or weight that some C code forgets does not compile."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"

SWITCHES = {
    "bi_activation": ("activation_body.inc", "elementwise_body.inc", "epilogue.h"),
    "bi_weight_type": ("conv2d.h", "gemv_avx2.c"),
}
"""Where the code is that tells kinds apart."""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names files of x86-64")
@pytest.mark.parametrize("kind", SWITCHES)
def test_a_new_kind_is_missed_by_the_compiler_wherever_kinds_are_told_apart(
    kind: str, tmp_path: Path
) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or not CSRC.is_dir():
        pytest.skip("no gcc, or no sources")
    shutil.copytree(CSRC, tmp_path / "csrc")
    header = tmp_path / "csrc" / "bitinfer.h"
    text, count = re.subn(rf"(typedef enum {kind} {{)", r"\1 BI_FORGOTTEN,", header.read_text())
    assert count == 1
    header.write_text(text)
    unit = tmp_path / "all.c"
    sources = sorted((tmp_path / "csrc").rglob("*.c"))
    unit.write_text("".join(f'#include "{source}"\n' for source in sources))
    command = [compiler, "-std=c11", "-Wswitch", "-fsyntax-only", f"-I{header.parent}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    warning = r"(\w+\.\w+):\d+:\d+: warning: enumeration value .BI_FORGOTTEN"
    missed = re.findall(warning, done.stderr)
    assert set(missed) == set(SWITCHES[kind])
