"""export/: a network as C gives the same logits as in Python, whatever compiles and runs it."""

from __future__ import annotations

import ctypes
import dataclasses
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("bitinfer.backends.native._native", reason="there is no compiled extension")

from exported import (
    COMPILERS,
    EXAMPLES,
    WARNINGS,
    Compiler,
    Program,
    expected,
    from_zoo,
    pixels,
    program,
    resnet20,
    write,
)

from bitinfer import modelfile
from bitinfer.errors import UsageError
from bitinfer.export_c import Exported, export_c, identifier
from bitinfer.export_c.network import instruction_sets, targets
from bitinfer.graph import GraphBuilder
from bitinfer.model import Model
from graph_examples import every_node, grown, only_integers, only_windows

GCC = COMPILERS["fast"]
WASM = EXAMPLES / "embed" / "classify.mjs"
LENET5 = modelfile.load(EXAMPLES / "lenet5.bin")


def backend_of(compiler: Compiler) -> str:
    """The backend of Python that computes what a program does: on Arm, floats are in plain C."""
    return "native:portable" if compiler.runner else "native"


@pytest.fixture(scope="module")
def lenet5(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return program(LENET5, tmp_path_factory.mktemp("lenet5"))


def long(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.long) for name in names]


ALL = long(*(name for name in COMPILERS if name != "armv7"))
"""A unit with the kernels of all instruction sets takes a compiler half a minute.

By default one such unit is compiled, as a shared library; networks are exported with the kernels of
the best instruction set here alone.
"""


OTHERS = ("portable", "popcnt", "neon")
"""Instruction sets that are quick to compile, or of another CPU."""


def best_isa() -> str:
    """The name of the richest instruction set of this CPU."""
    from bitinfer.backends.native import instruction_sets as here

    return [isa for isa, runs in here().items() if runs][-1]


@pytest.mark.parametrize("name", ["armv7", *ALL])
def test_lenet5_gives_the_logits_of_python_by_every_compiler(lenet5: Program, name: str) -> None:
    compiler = COMPILERS[name]
    x = pixels(LENET5, 3)
    result = lenet5.run(lenet5.build(compiler), x)
    assert result == expected(LENET5, x, backend_of(compiler))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: from_zoo("xnor-nin"), id="nin", marks=pytest.mark.long),
        pytest.param(resnet20, id="resnet20"),
    ],
)
def test_networks_of_cifar10_give_the_logits_of_python_by_the_best_kernels(
    make: Callable[[], Model], tmp_path: Path
) -> None:
    model, isa = make(), best_isa()
    x = pixels(model, 1)
    c = program(model, tmp_path, isa)
    assert c.run(c.build(GCC), x) == expected(model, x, f"native:{isa}")


@pytest.mark.long
@pytest.mark.parametrize("compiler", ["fast", "gcc", "g++", "aarch64", "armv7"])
@pytest.mark.parametrize(
    "make",
    [pytest.param(lambda: from_zoo("xnor-nin"), id="nin"), pytest.param(resnet20, id="resnet20")],
)
def test_networks_of_cifar10_give_the_logits_of_python(
    make: Callable[[], Model], compiler: str, tmp_path: Path
) -> None:
    model, chosen = make(), COMPILERS[compiler]
    x = pixels(model, 1)
    c = program(model, tmp_path)
    assert c.run(c.build(chosen), x) == expected(model, x, backend_of(chosen))


@pytest.mark.long
@pytest.mark.parametrize("compiler", ["gcc", "clang", "aarch64"])
def test_bi_real_net_18_gives_the_logits_of_python(compiler: str, tmp_path: Path) -> None:
    model, chosen = from_zoo("bireal18"), COMPILERS[compiler]
    x = pixels(model, 1)
    c = program(model, tmp_path)
    assert c.run(c.build(chosen), x) == expected(model, x, backend_of(chosen))


def test_every_operation_gives_the_values_of_python_by_the_best_kernels(tmp_path: Path) -> None:
    isa = best_isa()
    assert_same_values(Model(*every_node()), GCC, f"native:{isa}", tmp_path, isa)


@pytest.mark.long
@pytest.mark.parametrize("compiler", ["fast", "aarch64", "clang++"])
@pytest.mark.parametrize(
    "make",
    [every_node, only_windows, only_integers, pytest.param(lambda: grown(2, 40), id="grown")],
)
def test_every_operation_gives_the_values_of_python(
    make: Callable[[], Any], compiler: str, tmp_path: Path
) -> None:
    chosen = COMPILERS[compiler]
    assert_same_values(Model(*make()), chosen, backend_of(chosen), tmp_path)


def assert_same_values(
    model: Model, compiler: Compiler, backend: str, folder: Path, *isas: str
) -> None:
    c = program(model, folder, *isas)
    rng = np.random.default_rng(5)
    shape = (2, *model.graph.input.shape)
    if c.exported.network.takes_pixels:
        x: Any = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        x = rng.standard_normal(shape).astype(np.float32)
    got = np.frombuffer(c.run(c.build(compiler), x), np.float32)
    wanted = np.frombuffer(expected(model, x, backend), np.float32)
    if compiler.runner:  # a C library of its own may round exp() otherwise
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    else:
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    "isa",
    ["portable", "popcnt", *long(*(isa for isa in instruction_sets() if isa not in OTHERS))],
)
def test_one_instruction_set_alone_gives_what_python_does_capped_to_it(
    isa: str, tmp_path: Path
) -> None:
    from bitinfer.backends.native import instruction_sets as here

    if not here()[isa]:
        pytest.skip(f"this CPU lacks {isa}")
    c = program(LENET5, tmp_path, isa)
    x = pixels(LENET5, 2)
    assert c.run(c.build(GCC), x) == expected(LENET5, x, f"native:{isa}")
    found = {kernel[2] for kernel in c.exported.network.kernels}
    assert found <= set(targets()["x86_64"][: targets()["x86_64"].index(isa) + 1])


def test_a_weight_that_one_kernel_alone_takes_costs_no_ram() -> None:
    for target in export_c(LENET5, "net", ["portable"]).network.targets:
        assert target.network_bytes < 4096
        for choices, stored in zip(target.choices, target.stored, strict=True):
            assert stored is None or stored.in_place == {(c.method, c.isa) for c in choices}


def test_portable_lenet5_takes_less_than_160_kb_of_rom_and_64_kb_of_ram(tmp_path: Path) -> None:
    GCC.require()
    if shutil.which("size") is None:
        pytest.skip("there is no program 'size'")
    write(export_c(LENET5, "net", ["portable"]), tmp_path)
    for optimise in ("-O2", "-Os"):
        command = ["gcc", optimise, "-c", "bitinfer_net.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        printed = subprocess.run(
            ["size", "bitinfer_net.o"], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
        text, data, bss = map(int, printed.splitlines()[1].split()[:3])
        assert text + data < 160_000
        assert bss < 64 * 1024


def test_two_networks_are_linked_into_one_program(tmp_path: Path) -> None:
    GCC.require()
    other = from_zoo("bnn-pynq-lfc")
    write(export_c(LENET5, "one", ["portable", "popcnt"]), tmp_path)
    write(export_c(other, "two", ["portable", "popcnt"]), tmp_path)
    (tmp_path / "main.c").write_text(
        '#include "bitinfer_one.h"\n#include "bitinfer_two.h"\n'
        "static uint8_t pixels[BITINFER_ONE_INPUTS + BITINFER_TWO_INPUTS];\n"
        "int main(void)\n{\n    float a[BITINFER_ONE_OUTPUTS], b[BITINFER_TWO_OUTPUTS];\n"
        "    return bitinfer_one_run(pixels, a) | bitinfer_two_run(pixels, b);\n}\n"
    )
    command = ["gcc", "-O1", "bitinfer_one.c", "bitinfer_two.c", "main.c", "-o", "both", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "both"], check=False).returncode == 0


@dataclasses.dataclass(frozen=True)
class Library:
    """LeNet-5 with all its kernels as an object file, and that as a shared library."""

    object: Path
    loaded: ctypes.CDLL
    exported: Exported


@pytest.fixture(scope="module")
def shared_library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    GCC.require()
    folder = tmp_path_factory.mktemp("shared")
    exported = export_c(LENET5, "lenet5")
    write(exported, folder)
    for command in (
        [*GCC.command, *WARNINGS, "-fPIC", "-c", "bitinfer_lenet5.c"],
        ["gcc", "-shared", "bitinfer_lenet5.o", "-o", "lenet5.so", "-lm"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
    loaded = ctypes.CDLL(str(folder / "lenet5.so"))
    return Library(folder / "bitinfer_lenet5.o", loaded, exported)


def test_only_the_functions_of_the_header_and_a_table_are_visible(shared_library: Library) -> None:
    if shutil.which("nm") is None:
        pytest.skip("there is no program 'nm'")
    printed = subprocess.run(
        ["nm", shared_library.object], check=True, capture_output=True, text=True
    ).stdout
    visible = set(re.findall(r" [TDRBGSC] (\w+)$", printed, re.MULTILINE))
    functions = {f"bitinfer_lenet5_{name}" for name in ("run", "prepare", "run_in")}
    assert visible - {"bitinfer_lenet5_lookup_nibbles"} == functions
    used = set(re.findall(r" U (\w+)$", printed, re.MULTILINE))
    assert not used & {"malloc", "calloc", "realloc", "free", "pthread_create"}


def address(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def aligned(size: int) -> Any:
    raw = np.zeros(size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size]


def test_a_shared_library_gives_the_logits_of_python(shared_library: Library) -> None:
    x = pixels(LENET5, 3)
    logits = np.zeros((3, 10), np.float32)
    for i in range(3):
        assert shared_library.loaded.bitinfer_lenet5_run(address(x[i]), address(logits[i])) == 0
    assert logits.tobytes() == expected(LENET5, x, "native")


def test_a_shared_library_is_called_from_python_with_arenas_of_its_own(
    shared_library: Library,
) -> None:
    library, exported = shared_library.loaded, shared_library.exported
    here = next(t for t in exported.network.targets if t.name == platform.machine())
    network, arenas = aligned(here.network_bytes), [aligned(here.arena_bytes) for _ in range(2)]
    prepared = library.bitinfer_lenet5_prepare(
        address(network), ctypes.c_size_t(here.network_bytes)
    )
    assert prepared == 0
    before = network.copy()
    x = pixels(LENET5, 4)
    logits = np.zeros((4, 10), np.float32)
    for i in range(4):
        arguments = map(address, (network, arenas[i % 2], x[i], logits[i]))
        assert library.bitinfer_lenet5_run_in(*arguments) == 0
    assert logits.tobytes() == expected(LENET5, x, "native")
    np.testing.assert_array_equal(network, before)


def test_memory_that_does_not_do_is_refused(shared_library: Library) -> None:
    room = aligned(1 << 20)
    prepare = shared_library.loaded.bitinfer_lenet5_prepare
    start = room.ctypes.data
    assert prepare(ctypes.c_void_p(start + 8), ctypes.c_size_t(1 << 19)) == -2
    assert prepare(None, ctypes.c_size_t(1 << 19)) == -2
    assert prepare(ctypes.c_void_p(start), ctypes.c_size_t(64)) == -3
    assert prepare(ctypes.c_void_p(start), ctypes.c_size_t(1 << 13)) == -3


def classified(printed: str) -> list[tuple[int, np.float32]]:
    return [(int(a), np.float32(b)) for a, b in map(str.split, printed.splitlines())]


@pytest.mark.parametrize("language", ["c", "go", "rs"])
def test_an_example_says_what_python_does(language: str, tmp_path: Path) -> None:
    for tool in {"c": ["gcc"], "go": ["go", "gcc"], "rs": ["rustc", "gcc", "ar"]}[language]:
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    write(export_c(LENET5, "lenet5", ["portable"]), tmp_path)
    example = Path(shutil.copy(EXAMPLES / "embed" / f"classify.{language}", tmp_path))
    steps = {
        "c": [["gcc", "-O2", "-I.", "bitinfer_lenet5.c", example.name, "-o", "classify", "-lm"]],
        "go": [["go", "mod", "init", "classify"], ["go", "build"]],
        "rs": [
            ["gcc", "-O2", "-c", "bitinfer_lenet5.c"],
            ["ar", "rc", "libbitinfer_lenet5.a", "bitinfer_lenet5.o"],
            ["rustc", "-O", "-L", ".", "-l", "static=bitinfer_lenet5", "-l", "m", example.name],
        ],
    }[language]
    for command in steps:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    x = pixels(LENET5, 5)
    done = subprocess.run([tmp_path / "classify"], input=x.tobytes(), capture_output=True)
    wanted = np.frombuffer(expected(LENET5, x, "native:portable"), np.float32).reshape(5, 10)
    right = [(int(row.argmax()), row.max()) for row in wanted]
    assert classified(done.stdout.decode()) == right


def wide() -> Model:
    """A layer of 74 words: a byte that counts 8 bits a step is full before its end."""
    b = GraphBuilder("wide", (28, 28, 1))
    x = b.flatten(b.concat(*[b.input] * 6), "channels_last")
    rng = np.random.default_rng(1)
    y = b.bdense(b.sign(x), rng.standard_normal((10, 4704)), bias=rng.standard_normal(10))
    return Model(*b.build(y), preprocessing=LENET5.preprocessing)


@pytest.mark.parametrize("make", [pytest.param(lambda: LENET5, id="lenet5"), wide])
def test_a_web_assembly_module_says_in_node_what_python_does(
    make: Callable[[], Model], tmp_path: Path
) -> None:
    model = make()
    for tool in ("clang", "wasm-ld", "node"):
        if shutil.which(tool) is None and shutil.which(f"{tool}-14") is None:
            pytest.skip(f"there is no {tool}")
    write(export_c(model, "lenet5", ["portable"]), tmp_path)
    command = re.search(r"(clang --target=wasm32.*)", WASM.read_text())
    assert command is not None
    done = subprocess.run(
        command[1].split(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "stdint.h" in done.stderr or "crt1" in done.stderr:
        pytest.skip("there is no C library for WebAssembly (Debian: wasi-libc)")
    if "builtins-wasm32" in done.stderr:
        pytest.skip("clang has no run-time for WebAssembly (Debian: libclang-rt-14-dev-wasm32)")
    assert done.returncode == 0, done.stderr
    x = pixels(model, 5)
    done = subprocess.run(
        ["node", WASM, tmp_path / "lenet5.wasm"], input=x.tobytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    wanted = np.frombuffer(expected(model, x, "native:portable"), np.float32).reshape(5, 10)
    right = [(int(row.argmax()), row.max()) for row in wanted]
    assert classified(done.stdout.decode()) == right


def test_binary_layers_count_128_bits_a_step_in_web_assembly(tmp_path: Path) -> None:
    objdump = next(filter(None, map(shutil.which, ("llvm-objdump", "llvm-objdump-14"))), None)
    if shutil.which("clang") is None or objdump is None:
        pytest.skip("there is no clang, or no llvm-objdump")
    write(export_c(LENET5, "net", ["portable"]), tmp_path)
    command = ["clang", "--target=wasm32-wasi", "-O2", "-msimd128", "-c", "bitinfer_net.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if "stdint.h" in done.stderr or "No available targets" in done.stderr:
        pytest.skip("there is no C library for WebAssembly (Debian: wasi-libc)")
    if "builtins-wasm32" in done.stderr:
        pytest.skip("clang has no run-time for WebAssembly (Debian: libclang-rt-14-dev-wasm32)")
    assert done.returncode == 0, done.stderr
    listing = subprocess.run(
        [objdump, "-d", "bitinfer_net.o"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    functions = dict(re.findall(r"^\w+ <(\w+)>:\n(.*?)(?=^\w+ <|\Z)", listing, re.M | re.S))
    for name in ("run_bconv2d_portable", "run_bdense_portable"):
        assert "i8x16.popcnt" in functions[name]
        assert "v128.xor" in functions[name]


def test_a_cpu_without_kernels_is_refused_by_the_compiler(tmp_path: Path) -> None:
    COMPILERS["armv7"].require()
    write(export_c(LENET5, "net", ["avx2"]), tmp_path)
    command = ["arm-linux-gnueabihf-gcc", "-c", "bitinfer_net.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no kernels for this CPU" in done.stderr


def test_a_wrong_instruction_set_or_name_is_an_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'avx2'"):
        export_c(LENET5, "net", ["avx3"])
    with pytest.raises(UsageError, match="'a_b' can"):
        export_c(LENET5, "a-b")


@pytest.mark.parametrize(
    ("text", "word"),
    [("LeNet 5", "lenet_5"), ("5net", "network_5net"), ("-", "network"), ("ä x", "x")],
)
def test_any_text_becomes_an_identifier(text: str, word: str) -> None:
    assert identifier(text) == word


def test_a_name_in_the_model_cannot_end_a_comment(tmp_path: Path) -> None:
    GCC.require()
    b = GraphBuilder('*/ #error "out"', input_shape=(4, 4, 1))
    x = b.conv2d(b.input, np.ones((2, 3, 3, 1)), name="*/int main;\\")
    c = program(Model(*b.build(x)), tmp_path, "portable")
    c.build(GCC)
