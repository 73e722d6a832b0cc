"""``./dev``, and what it keeps true in a checkout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bitinfer

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".ci" / "dev"

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason="there is no ./dev beside the tests")


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """What imports the modules of ./dev."""
    sys.path.insert(0, str(TOOLS))
    import library

    return library


def test_the_extension_is_not_older_than_its_sources(tools: ModuleType) -> None:
    if ROOT not in Path(bitinfer.__file__).parents or ".venv" in Path(bitinfer.__file__).parts:
        pytest.skip("bitinfer is installed, not run from this checkout")
    if importlib.util.find_spec("bitinfer.backends.native._native") is None:
        pytest.skip("bitinfer was built without a C compiler")
    newer = [str(path.relative_to(ROOT)) for path in tools.newer_sources()]
    assert not newer, f"run ./dev build: newer than the extension are {', '.join(newer)}"
