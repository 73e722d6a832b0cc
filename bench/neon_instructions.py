"""Instructions of NEON's narrow binary layers, counted under emulation, where nothing can be timed.

    python bench/neon_instructions.py [LAYER...]

A layer is ``16x32``: 3x3, 16 channels in and out, on 32 x 32 pixels.  Prints, for each, how many
multiply-accumulates an instruction does, staging and epilogue included, with pixels in the lanes
(pixels4) and with outputs in the lanes (lookup4), and which of the two the layer gets.  Wants
aarch64-linux-gnu-gcc and qemu-aarch64 (Debian: gcc-aarch64-linux-gnu, qemu-user).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPILE = ("aarch64-linux-gnu-gcc", "-std=c11", "-O3", "-ffp-contract=off", "-pthread")
EMULATE = ("qemu-aarch64", "-singlestep", "-d", "nochain,exec", "-D", "/dev/stdout")
LAYERS = ("8x32", "16x32", "32x32", "48x32", "64x32", "64x16", "32x8")


def build(folder: Path) -> Path:
    """Compile all kernels and the program that runs one of them."""
    program = folder / "program"
    files = [Path(__file__).with_suffix(".c"), *sorted((ROOT / "csrc").rglob("*.c"))]
    command = [*COMPILE, "-static", f"-I{ROOT / 'csrc'}", *map(str, files), "-lm", "-o"]
    subprocess.run([*command, str(program)], check=True)
    return program


def counted(program: Path, *arguments: object) -> tuple[int, str]:
    """Return how many instructions a run of the program takes, and what it prints."""
    command = [*EMULATE, str(program), *map(str, arguments)]
    instructions, printed = 0, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Trace "):
                instructions += 1
            else:
                printed += line
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return instructions, printed.strip()


def instructions(program: Path, method: str, channels: int, side: int, ending: str) -> int:
    """Return the instructions of one layer by one method."""
    layer = (method, channels, channels, side, 3, 1, ending)
    return counted(program, *layer, 2)[0] - counted(program, *layer, 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("layers", nargs="*", default=LAYERS, metavar="LAYER")
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for layer in parser.parse_args().layers:
            channels, side = map(int, layer.split("x"))
            macs = 9 * channels * channels * side * side
            for ending in ("signs", "plain", "shortcut"):
                rates = ", ".join(
                    f"{method} {macs / instructions(program, method, channels, side, ending):.1f}"
                    for method in ("pixels4", "lookup4")
                )
                gets = counted(program, "lookup4", channels, channels, side, 3, 1, ending, 0)[1]
                print(f"{layer} {ending}: {rates}; it gets {gets}", flush=True)


if __name__ == "__main__":
    main()
