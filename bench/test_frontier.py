"""The script of accuracy against latency, on a network of random weights and no rivals."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import frontier
import numpy as np
import pytest

from bitinfer import modelfile, zoo
from bitinfer.model import Model
from bitinfer.zoo.data import LABELS, PREPROCESSING


@pytest.mark.parametrize("isa", ["native", "avx2"])
def test_frontier_measures_both_ends_and_draws(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    for name, count in (("train", 5010), ("test", 10)):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        (tmp_path / f"{name}_rgb.u8.xz").write_bytes(lzma.compress(images.tobytes(), preset=0))
        (tmp_path / f"{name}_labels.u8").write_bytes(bytes(i % 10 for i in range(count)))
    graph, tensors = zoo.build("bitres8", zoo.RandomParameters(seed=0))
    preprocessing = PREPROCESSING["cifar10", "binary-net"]
    model = Model(graph, tensors, labels=LABELS["cifar10"], preprocessing=preprocessing)
    modelfile.save(model, tmp_path / "net.bin")
    monkeypatch.setattr(frontier, "SHIPPED", {})
    monkeypatch.setattr(frontier.os, "sched_setaffinity", lambda pid, cpus: None)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["frontier.py", *map(str, arguments)])
        frontier.main()

    measured, picture = tmp_path / "points.json", tmp_path / "frontier.png"
    given = ("--data", tmp_path, "--rivals", tmp_path, "--model", tmp_path / "net.bin")
    call("measure", *given, "--isa", isa, "--rounds", 1, "-o", measured)
    points = json.loads(measured.read_text())
    assert [p["name"] for p in points] == ["net", "net, integer ends"]
    assert all(0 < p["milliseconds"] < 1000 and p["total"] == 10 for p in points)
    assert all(0 <= p["correct"] <= 10 and p["isa"] == isa for p in points)
    call("draw", measured, "-o", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
