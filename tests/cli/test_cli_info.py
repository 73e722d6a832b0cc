"""``bitinfer info``: what is there, and why the rest is not."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from typing import Any

import pytest

from bitinfer import backends
from bitinfer._version import __version__

Call = Callable[..., Any]


def test_json_lists_versions_cpu_backends_and_kernels(call: Call) -> None:
    result = call("info", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["version"] == __version__
    assert document["python"] == platform.python_version()
    assert document["cpu"]["model"]
    assert document["cpu"]["features"]
    names = [b["name"] for b in document["backends"]]
    assert names == ["native", "numba", "reference"]
    assert all(b["available"] or b["reason"] for b in document["backends"])
    assert document["backend"]
    assert document["kernels"]["bconv2d"]


def test_text_says_why_a_backend_is_absent(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    status = [
        backends.Status("native", available=False, reason="no\x1b[2J compiler"),
        backends.Status("reference", available=True),
    ]
    monkeypatch.setattr(backends, "status", lambda: status)
    monkeypatch.setattr(backends, "cpu_features", dict)
    result = call("info", "--backend=reference")
    assert result.code == 0
    assert r"native     absent   no\x1b[2J compiler" in result.out
    assert "reference  present" in result.out
    assert "kernels of reference" in result.out


def test_backend_that_is_not_there_is_exit_code_2(call: Call) -> None:
    result = call("info", "--backend=native:none")
    assert result.code == 2
    assert result.err.count("\n") == 1
