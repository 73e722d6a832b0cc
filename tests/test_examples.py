"""The examples of services in examples/services do what they say."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SERVICES = EXAMPLES / "services"
MODEL = EXAMPLES / "lenet5.bin"
DIGITS = (2, 5, 7)
ENVIRONMENT = {
    **os.environ,
    "MODEL": str(MODEL),
    "PYTHONPATH": os.pathsep.join(sys.path),
}


@pytest.mark.parametrize("name", ["processes.py", "threads.py", "tasks.py"])
def test_pictures_are_classified_in_order(name: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    pictures = [*(EXAMPLES / f"digit_{digit}.png" for digit in DIGITS), bad] * 5
    done = subprocess.run(
        [sys.executable, str(SERVICES / name), str(MODEL), *map(str, pictures)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [path for path, _ in lines] == list(map(str, pictures))
    for number, (_, label) in enumerate(lines):
        if number % 4 == 3:
            assert label.startswith("error: ")
        else:
            assert label == str(DIGITS[number % 4])


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def post(port: int, path: str, body: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def started(port: int, *command: str) -> Iterator[None]:
    """Run a server until it is no longer needed; its end must be an orderly one."""
    popen = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert popen.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        yield
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(30) in (0, -signal.SIGTERM)
    finally:
        popen.kill()
        popen.wait()


@pytest.fixture
def fastapi(port: int) -> Iterator[None]:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    yield from started(
        port, "uvicorn", f"--port={port}", f"--app-dir={SERVICES}", "fastapi_route:app"
    )


@pytest.fixture
def gunicorn(port: int) -> Iterator[None]:
    pytest.importorskip("gunicorn")
    yield from started(
        port,
        "gunicorn",
        "--preload",
        "--workers=3",
        "--threads=2",
        f"--bind=127.0.0.1:{port}",
        f"--chdir={SERVICES}",
        "gunicorn_app:app",
    )


@pytest.mark.usefixtures("fastapi")
def test_fastapi(port: int) -> None:
    for digit in DIGITS:
        body = (EXAMPLES / f"digit_{digit}.png").read_bytes()
        status, answer = post(port, "/digit", body)
        assert (status, answer["digit"]) == (200, str(digit))
        status, answer = post(port, "/bitinfer/v2/models/model/classify", body)
        assert (status, answer["predictions"][0]["label"]) == (200, str(digit))
    assert post(port, "/digit", b"no picture")[0] == 400
    assert post(port, "/digit", bytes(1 << 21))[0] == 413


@pytest.mark.usefixtures("gunicorn")
def test_gunicorn_with_workers_that_are_forked_from_what_is_loaded(port: int) -> None:
    workers = set()
    for number in range(60):
        digit = DIGITS[number % 3]
        status, answer = post(port, "/", (EXAMPLES / f"digit_{digit}.png").read_bytes())
        assert (status, answer["labels"][0]) == (200, str(digit))
        workers.add(answer["worker"])
    assert len(workers) > 1
    assert post(port, "/", b"no picture")[0] == 400
