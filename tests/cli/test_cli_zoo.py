"""``bitinfer zoo``: what comes along, and getting one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitinfer.zoo.shipped import SHIPPED

Call = Callable[..., Any]


def test_list_has_every_model_with_its_accuracy(call: Call) -> None:
    result = call("zoo", "list")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *SHIPPED]
    lenet = next(line for line in lines if line.startswith("lenet5-mnist"))
    assert "99.41 % (9941 of 10000; 95 % interval 99.24 to 99.54 %)" in lenet


def test_json_names_files_that_are_there(call: Call) -> None:
    answer = json.loads(call("zoo", "list", "--json").out)
    for described, model in zip(answer["models"], SHIPPED.values(), strict=True):
        assert Path(described["path"]).read_bytes() == model.path.read_bytes()
        assert (described["name"], described["data_set"]) == (model.name, model.data_set)
        assert (described["correct"], described["total"]) == (model.correct, model.total)


def test_get_writes_model_and_card(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = SHIPPED["lenet5-mnist"]
    result = call("zoo", "get", "lenet5-mnist")
    assert result.code == 0
    assert result.out.startswith("lenet5-mnist.bin: 99.41 %")
    assert (tmp_path / "lenet5-mnist.bin").read_bytes() == model.path.read_bytes()
    assert (tmp_path / "lenet5-mnist.md").read_bytes() == model.card.read_bytes()
    assert call("zoo", "get", "lenet5-mnist", "-o", "model.md").code == 0
    assert (tmp_path / "model.md").read_bytes() == model.path.read_bytes()
    assert (tmp_path / "model.md.md").read_bytes() == model.card.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("get", "lenet5-mnist", "-o", "/"), 1, "cannot write /: is a directory"),
        (("get",), 2, "'zoo get' wants a name: lenet5-mnist"),
        (("get", "lenet5"), 2, "did you mean 'lenet5-mnist'"),
        (("list", "lenet5-mnist"), 2, "'zoo list' takes no name"),
        (("list", "-o", "x"), 2, "takes no name and no file"),
        (("show",), 2, "invalid choice"),
        (("get", "lenet5-mnist", "-o", "nowhere/m.bin"), 1, "nowhere"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("zoo", *arguments)
    assert result.code == code
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
