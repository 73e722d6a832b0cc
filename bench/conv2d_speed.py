"""Times the float and integer convolutions and dense layers: multiply-accumulates a cycle.

    python bench/conv2d_speed.py [--compiler gcc ...] [--isa avx2] [--rounds 15] [--layers conv1]

Every compiler builds the kernels anew; the programs run one after another, and print a line for
each layer.  Cycles are of the clock as a chain of dependent additions shows it in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-pthread")


def main() -> int:
    """Compile and run; return 0 if every program does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", nargs="+", default=["gcc"], help="default: gcc")
    parser.add_argument("--isa", default="any", help="the richest instruction set; default: any")
    parser.add_argument("--rounds", type=int, default=15, help="the best of so many; default: 15")
    parser.add_argument("--layers", default="", help="part of the names of those to run")
    args = parser.parse_args()
    sources = [ROOT / "bench/rig/c/conv2d_speed.c", ROOT / "bench/rig/c/probes.c"]
    sources += sorted((ROOT / "csrc").rglob("*.c"))
    code = 0
    with tempfile.TemporaryDirectory(prefix="bitinfer-bench-") as folder:
        for compiler in args.compiler:
            program = Path(folder) / "conv2d_speed"
            command = [compiler, *FLAGS, f"-I{ROOT / 'csrc'}", *map(str, sources), "-lm"]
            code |= subprocess.run([*command, "-o", str(program)], check=False).returncode
            if program.exists():
                run = [str(program), args.isa, str(args.rounds), args.layers]
                code |= subprocess.run(run, check=False).returncode
                program.unlink()
    return code


if __name__ == "__main__":
    sys.exit(main())
