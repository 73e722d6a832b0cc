"""The steps of the Dockerfile, run in bare roots where there is no container runtime.

Each stage is a Debian of its own, made by debootstrap, with Debian's Python and its headers in the
place of the image's; RUN, COPY and ENV are taken from the file.  Needs root, debootstrap and a
Debian mirror.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs", "/etc/resolv.conf", "/etc/hosts")
"""What of this machine's set-up pip needs to find packages."""
NOBODY = 65534


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and their arguments, in order."""
    text = (ROOT / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [
        (name, argument)
        for name, _, argument in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def test_the_file_runs_as_nobody_and_ends_on_sigterm() -> None:
    found = dict(instructions())
    assert found["USER"] == f"{NOBODY}:{NOBODY}"
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert found["ENTRYPOINT"] == '["bitinfer"]'


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare Debian with Python as the image has it."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("needs root and debootstrap")
    root = tmp_path_factory.mktemp("debian") / "root"
    packages = "--include=python3,python3-dev,python3-venv,ca-certificates"
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", packages, "bookworm", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"debootstrap cannot make a Debian here: {done.stdout[-300:]}")
    (root / "usr/bin/python").symlink_to("python3")
    yield root
    shutil.rmtree(root)


def run(root: Path, command: str, environment: dict[str, str]) -> str:
    """Run a shell command in a root, without this machine's devices or processes."""
    done = subprocess.run(
        ["chroot", str(root), "/bin/sh", "-ec", command],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/root",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def lend(root: Path) -> dict[str, str]:
    """Give a root what pip and apt need of this machine; return their environment."""
    for name in PIP_FILES:
        source, target = Path(name), root / name.lstrip("/")
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    shared = [path for path in Path("/opt").glob("*") if path.name.startswith(("pypi", "wheels"))]
    for path in shared:
        shutil.copytree(path, root / "opt" / path.name, dirs_exist_ok=True)
    return {key: value for key, value in os.environ.items() if key.startswith("PIP_")}


def test_its_steps_make_a_server_that_answers(debian: Path, tmp_path: Path) -> None:
    stages: dict[str, Path] = {}
    environment: dict[str, str] = {}
    root = debian
    for name, argument in instructions():
        if name == "FROM":
            image, _, stage = argument.partition(" AS ")
            assert image == "python:3.11-slim-bookworm"
            root = tmp_path / (stage or "final")
            subprocess.run(["cp", "-a", str(debian), str(root)], check=True)
            stages[stage] = root
            lent = lend(root) if stage else {}
        elif name == "COPY" and argument == ". /src":
            archive = subprocess.run(
                ["git", "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True
            )
            (root / "src").mkdir()
            subprocess.run(["tar", "-x", "-C", str(root / "src")], input=archive.stdout, check=True)
        elif name == "COPY":
            stage, source, target = argument.removeprefix("--from=").split()
            copied = root / target.lstrip("/")
            shutil.copytree(stages[stage] / source.lstrip("/"), copied, symlinks=True)
        elif name == "RUN":
            printed = run(root, argument, {**lent, **environment})
            if "bitinfer info" in argument:
                assert "native" in printed
        elif name == "ENV":
            for setting in argument.split():
                key, _, value = setting.partition("=")
                environment[key] = value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    installed = root / "opt" / "bitinfer"
    size = sum(p.lstat().st_size for p in installed.rglob("*") if not p.is_dir())
    print(f"/opt/bitinfer: {size / 1e6:.0f} MB")
    assert size < 200e6
    assert not list(installed.rglob("pip/__init__.py"))
    shutil.copytree(ROOT / "examples", root / "models")
    serve = (
        "bitinfer serve --port 0 /models/lenet5.bin 2>/tmp/log & "
        "until grep -q 127.0.0.1: /tmp/log; do sleep 0.1; done; "
        'python -c "import re, urllib.request as r; '
        "url = re.findall(r'at (http://\\S+)', open('/tmp/log').read())[0]; "
        "picture = open('/models/digit_7.png', 'rb').read(); "
        "print(r.urlopen(url + 'v2/models/lenet5/classify', picture).read().decode())\"; "
        "kill $!; wait $!; echo ended $?"
    )
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert chroot is not None
    nobody = [chroot, f"--userspec={NOBODY}:{NOBODY}", str(root), "/bin/sh", "-c", serve]
    done = subprocess.run(
        nobody, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert '"label":"7"' in done.stdout, done.stdout + done.stderr
    assert "ended 0" in done.stdout
