"""Networks as C for tests: exported, compiled by whatever compilers there are, run on raw bytes."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bitinfer import zoo
from bitinfer.export_c import Exported, export_c
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A compiler, and what runs programs for its CPU."""

    command: tuple[str, ...]
    runner: tuple[str, ...] = ()

    @property
    def is_cpp(self) -> bool:
        return self.command[0].endswith("++")

    def require(self) -> None:
        for program in (self.command[0], *self.runner[:1]):
            if shutil.which(program) is None:
                pytest.skip(f"there is no {program}")


ARM64 = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
ARM32 = ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf")

COMPILERS = {
    "gcc": Compiler(("gcc", "-O2")),
    "fast": Compiler(("gcc", "-O1")),
    "gcc, small": Compiler(("gcc", "-std=c11", "-Os")),
    "gcc, this CPU": Compiler(("gcc", "-O3", "-march=native")),
    "clang": Compiler(("clang", "-O2")),
    "clang, this CPU": Compiler(("clang", "-O3", "-march=native")),
    "g++": Compiler(("g++", "-O2")),
    "clang++": Compiler(("clang++", "-O2")),
    "aarch64": Compiler(("aarch64-linux-gnu-gcc", "-O2"), ARM64),
    "aarch64, C++": Compiler(("aarch64-linux-gnu-g++", "-Os"), ARM64),
    "armv7": Compiler(("arm-linux-gnueabihf-gcc", "-O2"), ARM32),
    "armv7, small": Compiler(("arm-linux-gnueabihf-gcc", "-std=c11", "-Os"), ARM32),
}

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-maybe-uninitialized")
"""gcc's own AVX-512 header has variables that it takes for uninitialised.

Which loops clang unrolls is up to it, and it says so as a warning.
"""


class Program:
    """An exported network in a folder, as a program from raw inputs to raw outputs."""

    def __init__(self, exported: Exported, folder: Path) -> None:
        self.exported, self.folder = exported, folder
        self.name = exported.network.name
        write(exported, folder)
        plan = exported.network.plan
        kind = "uint8_t" if exported.network.takes_pixels else "float"
        sizes = [int(np.prod(plan.buffers[b].shape)) for b in (plan.input, *plan.outputs)]
        outputs = "".join(f"static float y{i}[{size}];\n" for i, size in enumerate(sizes[1:]))
        arguments = ", ".join(["x", *(f"y{i}" for i in range(len(sizes) - 1))])
        writes = "".join(
            f"        fwrite(y{i}, sizeof y{i}, 1, stdout);\n" for i in range(len(sizes) - 1)
        )
        (folder / "main.c").write_text(
            f'#include <stdio.h>\n#include "bitinfer_{self.name}.h"\n'
            f"static {kind} x[{sizes[0]}];\n{outputs}"
            "int main(void)\n{\n    while (fread(x, sizeof x, 1, stdin) == 1) {\n"
            f"        int code = bitinfer_{self.name}_run({arguments});\n"
            "        if (code != 0)\n            return 100 + code;\n"
            f"{writes}    }}\n    return 0;\n}}\n"
        )

    def build(self, compiler: Compiler) -> list[str]:
        """Compile with the one command of the header, and every warning an error."""
        compiler.require()
        target = self.folder / ("program-" + "-".join(compiler.command).replace("=", "-"))
        files = [self.folder / f"bitinfer_{self.name}.c", self.folder / "main.c"]
        if compiler.is_cpp:
            files = [Path(shutil.copy(file, file.with_suffix(".cpp"))) for file in files]
        command = [*compiler.command, *WARNINGS, *map(str, files), "-o", str(target), "-lm"]
        if "clang" in compiler.command[0]:
            command[command.index("-Wno-maybe-uninitialized")] = "-Wno-pass-failed"
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        return [*compiler.runner, str(target)]

    def run(self, command: list[str], x: NDArray[np.generic]) -> bytes:
        done = subprocess.run(command, input=x.tobytes(), capture_output=True, check=False)
        assert done.returncode == 0, done
        return done.stdout


def write(exported: Exported, folder: Path) -> None:
    name = f"bitinfer_{exported.network.name}"
    (folder / f"{name}.c").write_text(exported.source)
    (folder / f"{name}.h").write_text(exported.header)


def program(model: Model, folder: Path, *isas: str) -> Program:
    return Program(export_c(model, "net", isas), folder)


def expected(model: Model, x: NDArray[np.generic], backend: str) -> bytes:
    """What Python computes, sample by sample, all outputs of one after those of another."""
    from bitinfer.session import Session

    session = Session(model, backend)
    parts = []
    for sample in x:
        result = session.run(sample)
        outputs = result.values() if isinstance(result, dict) else [result]
        parts += [np.ascontiguousarray(output).tobytes() for output in outputs]
    return b"".join(parts)


def from_zoo(name: str, **sizes: tuple[int, int, int]) -> Model:
    graph, tensors = zoo.build(name, zoo.RandomParameters(1), **sizes)
    return Model(graph, tensors, preprocessing=_preprocessing(graph.input.shape[-1]))


def _preprocessing(channels: int) -> Preprocessing:
    if channels == 1:
        return Preprocessing(color="grey", mean=(0.1307,), std=(0.3081,))
    return Preprocessing(color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def resnet20() -> Model:
    """ResNet-20 for CIFAR-10, a shortcut around every binary convolution, as in Bi-Real-Net."""
    rng = np.random.default_rng(3)
    b = GraphBuilder("resnet20", input_shape=(32, 32, 3))

    def norm(x: str, channels: int) -> str:
        scale, shift = rng.uniform(0.5, 1.5, channels), rng.standard_normal(channels) / 4
        return b.batch_norm(x, shift, scale)

    x = norm(b.conv2d(b.input, rng.standard_normal((16, 3, 3, 3)) / 3, padding=1), 16)
    channels = 16
    for stage, width in enumerate((16, 32, 64)):
        for layer in range(6):
            stride = 2 if stage and layer == 0 else 1
            shortcut = x
            if width != channels:
                weight = rng.standard_normal((width, 1, 1, channels)) / 4
                shortcut = norm(b.conv2d(b.avg_pool2d(x, 2, 2), weight), width)
            y = b.bconv2d(
                b.sign(x),
                rng.standard_normal((width, 3, 3, channels)),
                alpha=rng.uniform(0.01, 0.1, width),
                stride=stride,
                padding=1,
            )
            x, channels = b.add(norm(y, width), shortcut), width
    x = b.dense(b.global_pool2d(x), rng.standard_normal((10, 64)), bias=rng.standard_normal(10))
    return Model(*b.build(x), preprocessing=_preprocessing(3))


def pixels(model: Model, count: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *model.graph.input.shape), dtype=np.uint8)
