"""doctor.py: each prepared fault is found, and what is in order is not called one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitinfer
from bitinfer import backends, doctor
from bitinfer.doctor import Clock, Finding

PACKAGE = Path(bitinfer.__file__).parent
HAS_NATIVE = {s.name: s.available for s in backends.status()}["native"]


def named(findings: Iterator[Finding] | tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def run(
    *command: str, path: Path | None = None, prefix: tuple[str, ...] = (), **environment: str
) -> tuple[int, dict[str, Any]]:
    """Run ``bitinfer doctor --json`` as a process; return its exit code and its findings."""
    done = subprocess.run(
        [*prefix, sys.executable, *command, "-m", "bitinfer", "doctor", "--json"],
        env=os.environ | {"PYTHONPATH": str(path or PACKAGE.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, {f["check"]: f for f in json.loads(done.stdout)["findings"]}


# --- eight prepared faults -----------------------------------------------------------------------


def test_no_compiler_is_found(tmp_path: Path) -> None:
    code, found = run(PATH=str(tmp_path), CC="")
    assert found["no compiler"]["level"] == ("note" if HAS_NATIVE else "fault")
    assert code == int(any(f["level"] == "fault" for f in found.values()))


@pytest.mark.skipif(not backends.cpu_features().get("avx2"), reason="this CPU lacks AVX2 anyhow")
def test_no_avx2_by_a_cap_is_found() -> None:
    code, found = run(BITINFER_KERNELS="native:popcnt")
    assert found["no AVX2"]["level"] == "fault"
    assert "caps the kernels at popcnt" in found["no AVX2"]["what"]
    assert code == 1


def test_missing_numba_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    status = [
        backends.Status(s.name, s.available and s.name != "numba", "No module")
        for s in backends.status()
    ]
    monkeypatch.setattr(backends, "status", lambda: status)
    finding = named(doctor.numba_loops())["numba missing"]
    assert finding.level == ("note" if HAS_NATIVE else "fault")
    assert "bitinfer[numba]" in finding.mend


def test_numba_is_needed_where_native_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    status = [backends.Status(name, name == "reference", "gone") for name in backends.NAMES]
    monkeypatch.setattr(backends, "status", lambda: status)
    assert named(doctor.numba_loops())["numba missing"].level == "fault"
    assert named(doctor.extension(Path("/nonexistent")))["no compiled extension"].level == "fault"


def test_an_unwritable_numba_cache_is_found(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "file").write_text("")
    _, found = run(NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert "cannot be written" in found["numba cache unwritable"]["what"]


def test_no_place_for_the_numba_cache_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(backends, "numba_cache_folder", lambda: None)
    assert "every process compiles" in named(doctor.numba_loops())["numba cache unwritable"].what


def test_a_clock_that_is_shared_is_found() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("there is no affinity here")
    cpu = min(os.sched_getaffinity(0))
    burn = f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [cpu])
        measured = doctor.measure_clock()
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.wait()
    if measured is None:
        pytest.skip("only the native backend measures")
    assert measured.share < 0.7
    assert named(doctor.clock(measured))["shared clock"].level == "fault"


def test_a_clock_that_is_throttled_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "base_frequency").write_text("3000000\n")
    assert not named(doctor.clock(Clock(2.9e9, 1.0), tmp_path))
    found = named(doctor.clock(Clock(1.2e9, 1.0), tmp_path))
    assert "1.20 GHz, it is made for 3.00 GHz" in found["throttled clock"].what


def test_the_clock_that_a_cpu_is_made_for_stands_in_its_name(tmp_path: Path) -> None:
    assert doctor.nominal_hz(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Some(R) CPU @ 2.40GHz\n")
    assert doctor.nominal_hz(tmp_path) == 2.4e9


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is one CPU alone")
def test_a_narrow_affinity_is_found() -> None:
    if shutil.which("taskset") is None:
        pytest.skip("there is no taskset")
    cpu = str(min(os.sched_getaffinity(0)))
    code, found = run(prefix=("taskset", "-c", cpu))
    assert "1 of" in found["affinity"]["what"]
    assert code == 1


def test_a_quota_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "cpu.max").write_text("150000 100000\n")
    (group / "cpu.stat").write_text("nr_periods 9\nnr_throttled 7\n")
    finding = named(doctor.cpus(tmp_path))["cgroup limit"]
    assert "1 of 4 CPUs" in finding.what
    assert "7 times" in finding.what
    (group / "cpu.max").write_text("max 100000\n")
    assert not named(doctor.cpus(tmp_path))


def test_a_wheel_of_another_architecture_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "bitinfer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little")
    other = 183 if os.uname().machine != "aarch64" else 62
    library = copy / "backends" / "native" / "_native.abi3.so"
    library.write_bytes(head + other.to_bytes(2, "little") + bytes(44))
    code, found = run(path=tmp_path)
    assert "the extension is for" in found["wheel of another architecture"]["what"]
    assert code == 1


def test_two_installed_versions_are_found(tmp_path: Path) -> None:
    other = tmp_path / "site-packages" / "bitinfer"
    other.mkdir(parents=True)
    (other / "_version.py").write_text('__version__ = "0.0.9"\n')
    found = named(doctor.installations([str(PACKAGE.parent), str(other.parent), "/nonexistent"]))
    assert "holds version 0.0.9" in found["two versions installed"].what
    assert not named(doctor.installations([str(PACKAGE.parent), ""]))


# --- and nothing else ----------------------------------------------------------------------------


def test_a_healthy_machine_has_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_NATIVE:
        pytest.skip("there is no compiled extension")
    monkeypatch.delenv("BITINFER_KERNELS", raising=False)
    monkeypatch.setattr(sys, "path", [str(PACKAGE.parent)])
    monkeypatch.setattr(os, "cpu_count", lambda: len(os.sched_getaffinity(0)))
    faults = [f for f in doctor.examine(Clock(3e9, 0.99), tmp_path) if f.level == "fault"]
    if not backends.cpu_features().get("avx2", True):
        faults = [f for f in faults if f.check != "no AVX2"]
    assert faults == []


def test_a_backend_that_is_not_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITINFER_KERNELS", "native:avx9")
    assert "unset BITINFER_KERNELS" in named(doctor.kernels())["no backend"].mend
    monkeypatch.setenv("BITINFER_KERNELS", "reference")
    found = named(doctor.kernels())
    assert set(found) == ({"a slower backend"} if HAS_NATIVE else set())
