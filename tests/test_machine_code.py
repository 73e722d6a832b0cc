"""What the compiler made of the kernels, and that the look at it finds what it should."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / ".ci" / "dev"

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="there is no ./dev beside the tests")

LOOP = """
0000000000000000 <run>:
   0:\tpush   %rbp
   1:\t{start}
   4:\tvmovdqu (%rsi,%rax,1),%ymm1
   9:\tvpshufb %ymm1,%ymm0,%ymm2
   e:\t{inside}
  17:\tadd    $0x20,%rax
  1b:\tcmp    %rdx,%rax
  1e:\tjne    4 <run+0x4>
  20:\t{end}
  23:\tret
"""


@pytest.fixture(scope="module", autouse=True)
def path() -> None:
    """Let the tests import the modules of ./dev."""
    if str(TOOLS) not in sys.path:
        sys.path.insert(0, str(TOOLS))


@pytest.fixture
def rules() -> ModuleType:
    import machine_code

    return machine_code


def only(text: str) -> object:
    import disassembly

    (function,) = disassembly.parse(text)
    return function


def loop(
    inside: str = "vpaddb %ymm2,%ymm3,%ymm3",
    end: str = "vzeroupper",
    start: str = "xor    %eax,%eax",
) -> object:
    return only(LOOP.format(inside=inside, end=end, start=start))


def test_a_clean_loop_is_found_and_breaks_no_rule(rules: ModuleType) -> None:
    assert len(rules.look_up_loops(loop())) == 1
    assert not [*rules.foreign(loop(), "avx2"), *rules.spills(loop()), *rules.dirty_returns(loop())]


@pytest.mark.parametrize(
    ("isa", "instruction"),
    [
        ("avx2", "vpaddb %zmm2,%zmm3,%zmm3"),
        ("avx2", "vpaddb %ymm2,%ymm16,%ymm3"),
        ("avx2", "vpcmpub $1,%xmm2,%xmm3,%k1"),
        ("avx512bw", "vpermb %zmm2,%zmm3,%zmm4"),
        ("avx512bw", "vpopcntq (%rax),%zmm4"),
        ("popcnt", "vpaddb %xmm2,%xmm3,%xmm3"),
        ("portable", "popcnt %rax,%rax"),
    ],
)
def test_an_instruction_of_richer_cpus_is_found(
    rules: ModuleType, isa: str, instruction: str
) -> None:
    function = only(f"0000000000000000 <run>:\n   0:\tmov    %rdi,%rax\n   3:\t{instruction}\n")
    (found,) = rules.foreign(function, isa)
    assert instruction in found
    assert not [*rules.foreign(function, "avx512vbmi")]


def test_a_spilled_vector_is_found_in_a_loop_of_look_ups_alone(rules: ModuleType) -> None:
    (found,) = rules.spills(loop("vmovdqa %ymm3,0x40(%rsp)"))
    assert "vmovdqa %ymm3,0x40(%rsp)" in found
    assert len([*rules.spills(loop("vmovdqu -0x50(%rbp),%ymm3"))]) == 1
    assert not [*rules.spills(loop("vmovdqa %ymm3,0x40(%rdi)"))]
    assert not [*rules.spills(loop(end="vmovdqa %ymm3,0x40(%rsp)"))]


def test_a_jump_into_the_midst_makes_no_loop(rules: ModuleType) -> None:
    assert not rules.look_up_loops(loop(start="je     9 <run+0x9>"))


def test_a_return_with_upper_halves_in_use_is_found(rules: ModuleType) -> None:
    (found,) = rules.dirty_returns(loop(end="nop"))
    assert found == "23: ret without vzeroupper"
    (found,) = rules.dirty_returns(loop(end="jmp    0 <other>\tR_X86_64_PLT32\tother-0x4"))
    assert "jmp" in found


def test_the_file_name_says_what_a_kernel_may_use(rules: ModuleType) -> None:
    names = ("bconv2d_lookup6_avx512vbmi.c", "tiles_avx2.o", "lookup_run.c", "pool_portable.o")
    assert [rules.isa_of(name) for name in names] == ["avx512vbmi", "avx2", "portable", "portable"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the rules are for x86-64")
@pytest.mark.skipif(not shutil.which("objdump"), reason="there is no objdump")
def test_the_kernels_of_the_last_build_break_no_rule(rules: ModuleType) -> None:
    import library

    objects = library.objects()
    if not objects or library.newer_sources():
        pytest.skip("there is no build of these sources; run ./dev build")
    report = rules.check(objects)
    assert not report.offences
    for isa in ("avx2", "avx512bw", "avx512vbmi"):
        assert report.look_up_loops[isa] >= 16, f"the table kernel of {isa} is not found"
