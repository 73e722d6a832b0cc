"""``bitinfer inspect``: what it shows, and that it needs no kernel."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bitinfer.graph import GraphBuilder, passes
from bitinfer.integer_ends import integer_ends
from bitinfer.model import Model, Preprocessing
from helpers import binary_model, colour_model, save

Call = Callable[..., Any]


def test_layers_are_counted_in_signs_and_multiplications(tmp_path: Path, call: Call) -> None:
    path = save(binary_model(), tmp_path / "m.bin")
    document = json.loads(call("inspect", "--json", path).out)
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["body"] == {
        "name": "body",
        "op": "bconv2d",
        "output_shape": [8, 8, 70],
        "kind": "float",
        "weight_bits": 1,
        "parameters": 70 * 3 * 3 * 20 + 70,
        "operations": 8 * 8 * 70 * 3 * 3 * 20,
    }
    assert layers["head"]["parameters"] == 10 * 1120
    assert layers["sign_0"]["kind"] == "sign"
    assert layers["sign_0"]["weight_bits"] is None
    assert layers["conv2d_0"]["weight_bits"] == 32
    parameters = 20 * 9 + 40 + 70 * 180 + 70 + 11200
    assert document["parameters"] == parameters
    assert document["float32_bytes"] == 4 * parameters
    assert document["binary_operations"] == 8 * 8 * 70 * 180 + 11200


def test_document_describes_the_whole_file(tmp_path: Path, call: Call) -> None:
    path = save(binary_model(), tmp_path / "m.bin")
    result = call("inspect", "--json", path)
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert document["checksum"] != document["sha256"]
    assert document["file_bytes"] == path.stat().st_size
    # The most that is alive at once: the signs that "body" reads and those that it writes.
    assert document["arena_bytes"] == 8 * 8 * (1 + 2) * 8
    assert document["input"] == {"name": "input", "shape": [8, 8, 1]}
    assert document["outputs"] == [{"name": "head", "shape": [10]}]
    assert document["preprocessing"]["color"] == "grey"
    assert document["labels"] == []
    assert document["provenance"]["importer"] == "tests"


def test_text_shows_layers_size_preprocessing_labels_and_checksum(
    tmp_path: Path, call: Call
) -> None:
    result = call("inspect", save(binary_model(), tmp_path / "m.bin"))
    assert (result.code, result.err) == (0, "")
    for text in (
        "8x8x70",
        "bconv2d",
        "12,670",
        "806,400",
        "times as much",
        "% of the operations",
        "bytes hold the values between the layers",
        "grey; (pixel * ",
        "none: classes are shown by number",
        "(matches)",
        "origin         tests",
        r"note         a\nb",
    ):
        assert text in result.out
    result = call("inspect", save(colour_model(), tmp_path / "c.bin"))
    assert "3: red, green, blue" in result.out
    assert "resize to 8x8 (bilinear)" in result.out
    assert "origin         unknown" in result.out


def test_model_without_preprocessing_can_be_inspected(tmp_path: Path, call: Call) -> None:
    path = save(colour_model(preprocessing=None), tmp_path / "m.bin")
    assert "none: takes arrays" in call("inspect", path).out
    assert json.loads(call("inspect", "--json", path).out)["preprocessing"] is None


def test_what_the_network_takes_is_said(tmp_path: Path, call: Call) -> None:
    plain = Preprocessing(color="bgr", mean=(0.0,) * 3, std=(0.5,) * 3, ground="white", invert=True)
    b = GraphBuilder("vector", input_shape=(4,))
    vector = Model(*b.build(b.dense(b.input, np.eye(4))))
    cropped = Preprocessing(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3, crop=(8, 8))
    image = np.full((8, 8, 3), 51, np.float32)
    image[0, 0, 0] = 102
    subtracted = msgspec.structs.replace(cropped, scale=1.0, mean_image="mean")
    with_image = colour_model(preprocessing=subtracted)
    with_image = dataclasses.replace(with_image, tensors={**with_image.tensors, "mean": image})
    for model, takes, ends in (
        (
            colour_model(),
            "pictures (any size), seen in colour; uint8 8x8x3 (pixels 0 to 255, rgb); "
            "float32 8x8x3 (pixels are -1 to 1)",
            [-1.0, 1.0],
        ),
        (
            colour_model(preprocessing=plain),
            "pictures (8x8 only), seen in colour; uint8 8x8x3 (pixels 0 to 255, bgr); "
            "float32 8x8x3 (pixels are 0 to 2)",
            [0.0, 2.0],
        ),
        (
            with_image,
            "pictures (at least 8x8), seen in colour; uint8 8x8x3 (pixels 0 to 255, rgb); "
            "float32 8x8x3 (pixels are -102 to 204)",
            [-102.0, 204.0],
        ),
        (vector, "float32 4", None),
    ):
        path = save(model, tmp_path / "m.bin")
        assert f"takes          {takes}\n" in call("inspect", path).out
        document = json.loads(call("inspect", "--json", path).out)
        assert (document["input_range"], document["takes_floats"]) == (ends, True)
    text = call("inspect", save(colour_model(preprocessing=plain), tmp_path / "m.bin")).out
    assert "bgr; transparency on white; dark and light exchanged; (pixel * " in text
    pixels = save(integer_ends(binary_model()).model, tmp_path / "ends.bin")
    assert "takes          pictures (8x8 only), seen in grey; uint8 8x8x1 (pixels 0 to 255)\n" in (
        call("inspect", pixels).out
    )
    assert json.loads(call("inspect", "--json", pixels).out)["takes_floats"] is False


def test_names_in_the_file_cannot_steer_the_terminal(tmp_path: Path, call: Call) -> None:
    model = colour_model(labels=("\x1b[2J", "b", "c"))
    result = call("inspect", save(model, tmp_path / "m.bin"))
    assert "\x1b" not in result.out


def test_rejected_file_is_exit_code_3(tmp_path: Path, call: Call) -> None:
    path = save(colour_model(), tmp_path / "m.bin")
    path.write_bytes(path.read_bytes()[:-3])
    result = call("inspect", "--json", path)
    assert (result.code, result.out) == (3, "")
    assert result.err.count("\n") == 1


def test_no_kernel_is_imported(tmp_path: Path) -> None:
    path = save(binary_model(), tmp_path / "m.bin")
    script = (
        "import sys; from bitinfer.cli import main; code = main(['inspect', sys.argv[1]]); "
        "names = {'bitinfer.backends', 'bitinfer.session', '_cffi_backend', 'numba', 'PIL'}; "
        "sys.exit(code or ', '.join(names & set(sys.modules)) or 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr.decode()


def test_passes_shows_the_network_as_it_is_run(tmp_path: Path, call: Call) -> None:
    path = save(binary_model(), tmp_path / "m.bin")
    result = call("inspect", "--passes", path)
    assert (result.code, result.err) == (0, "")
    assert re.search(r"fold_signs +\d+ -> \d+", result.out)
    assert re.search(r"\n\w+ +bconv2d .* sign +1 +threshold\n", result.out)
    document = json.loads(call("inspect", "--passes", "--json", path).out)
    optimised = document["optimised"]
    assert [p["name"] for p in optimised["passes"]] == list(passes.NAMES)
    assert optimised["passes"][-1]["after"] == len(optimised["layers"])
    assert len(optimised["layers"]) < len(document["layers"])
    assert all(
        layer["kind"] == "sign" for layer in optimised["layers"] if "threshold" in layer["epilogue"]
    )
    assert "optimised" not in json.loads(call("inspect", "--json", path).out)
