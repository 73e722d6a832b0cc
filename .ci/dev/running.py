"""The checkout, and how programs are started in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
LIBRARY = ROOT / "src" / "bitinfer" / "backends" / "native" / "_native.abi3.so"


def environment(root: Path = ROOT) -> dict[str, str]:
    """Return the environment in which Python finds the sources of a checkout first."""
    paths = [str(root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(*command: str | Path, root: Path = ROOT, **variables: str) -> int:
    """Run a program in a checkout, its output going where ours goes; return its exit code."""
    sys.stdout.flush()
    done = subprocess.run(
        [str(word) for word in command],
        cwd=root,
        env=environment(root) | variables,
        check=False,
    )
    return done.returncode


def tool(name: str) -> str:
    """Return the path of a program that was installed beside this Python, else its name."""
    path = Path(sysconfig.get_path("scripts"), name)
    return str(path) if path.exists() else name
