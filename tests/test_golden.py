"""Files of every format version, written once and kept: they load, and compute what they did."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bitinfer import modelfile
from bitinfer.graph.nodes import node_classes
from bitinfer.session import Session

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("v*/*.bin"))


@pytest.fixture(scope="module")
def make_v1() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_v1", GOLDEN / "make_v1.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_files_of_every_version_with_every_node() -> None:
    versions = {int(path.parent.name[1:]) for path in FILES}
    assert versions == set(range(1, modelfile.FORMAT_VERSION + 1))
    newest = [path for path in FILES if path.parent.name == f"v{modelfile.FORMAT_VERSION}"]
    kept = {type(node) for path in newest for node in modelfile.load(path).graph.nodes}
    assert kept == set(node_classes())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_kept_file_computes_what_it_did_when_it_was_written(
    path: Path, backend_name: str
) -> None:
    session = Session(modelfile.load(path), backend_name)
    with np.load(path.with_suffix(".npz")) as kept:
        got = session.run(kept["x"])
        if not isinstance(got, dict):
            got = {session.outputs[0].name: got}
        assert set(kept) == {"x", *got}
        for name, value in got.items():
            np.testing.assert_allclose(value, kept[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob(f"v{modelfile.FORMAT_VERSION}/*.bin")))
def test_a_kept_file_of_this_version_is_written_again_byte_for_byte(path: Path) -> None:
    assert modelfile.to_bytes(modelfile.load(path)) == path.read_bytes()


def test_the_networks_of_version_1_still_give_the_bytes_that_were_kept(make_v1: ModuleType) -> None:
    if modelfile.FORMAT_VERSION != 1:
        pytest.skip("this bitinfer writes a later format version")
    for name, make in make_v1.MODELS.items():
        assert modelfile.to_bytes(make()) == (GOLDEN / "v1" / f"{name}.bin").read_bytes()
