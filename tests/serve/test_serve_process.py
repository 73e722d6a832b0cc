"""``bitinfer serve`` as a process: its start, its workers, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bitinfer.cli import main
from helpers import encode, solid

ROOT = Path(__file__).parents[2]
PICTURE = encode(solid("green"))


def label(client: Any) -> str:
    status, answer, _ = client.post("/v2/models/colours/classify", PICTURE)
    assert status == 200, answer
    return str(answer["predictions"][0]["label"])


@pytest.fixture(params=[1, 2])
def running(request: pytest.FixtureRequest, process: Any, colours_file: Path) -> Any:
    """A server of one process, and one with workers."""
    return process("--backend=reference", f"--workers={request.param}", colours_file)


def test_it_says_where_it_is_and_what_bounds_it_and_one_line_for_each_request(running: Any) -> None:
    assert label(running) == "green"
    running.get("/v2/health/live?secret=1")
    running.get("/a%0Ab%1B[31m")
    assert running.end() == 0
    text = "".join(running.lines)
    assert "serving colours:1 (reference) at http://127.0.0.1:" in text
    assert "bounds:" in text
    access = [line for line in running.lines if line.startswith("127.0.0.1 ")]
    assert len(access) == 3, text
    assert access[0].startswith("127.0.0.1 POST /v2/models/colours/classify 200 ")
    assert "secret" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_nothing_is_left(running: Any, number: int) -> None:
    from serve_processes import is_alive

    children = running.children()
    assert label(running) == "green"
    assert running.end(number) == 0
    assert not any(is_alive(child) for child in children)
    with pytest.raises(ConnectionRefusedError):
        running.connect()


def test_while_it_ends_it_is_not_ready_and_still_answers(process: Any, colours_file: Path) -> None:
    server = process("--backend=reference", "--linger=2", colours_file)
    server.popen.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    status, answer, headers = server.get("/v2/health/ready")
    assert (status, answer) == (503, {"ready": False})
    assert headers["connection"] == "close"
    assert server.get("/v2/health/live")[0] == 200
    assert server.get("/v2/models/colours/ready")[0] == 503
    assert label(server) == "green"
    assert server.popen.wait(10) == 0


def test_a_request_that_is_under_way_is_answered(process: Any, colours_file: Path) -> None:
    server = process("--backend=reference", "--linger=0", colours_file)
    head = f"POST /v2/models/colours/classify HTTP/1.1\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
    with server.connect() as sock:
        sock.sendall(head.encode() + PICTURE[:10])
        time.sleep(0.2)
        server.popen.send_signal(signal.SIGTERM)
        time.sleep(0.6)
        sock.sendall(PICTURE[10:])
        answer = sock.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.popen.wait(10) == 0


def test_a_worker_that_dies_is_replaced(process: Any, colours_file: Path) -> None:
    server = process("--backend=reference", "--workers=2", colours_file)
    before = server.children()
    os.kill(before[0], signal.SIGKILL)
    end = time.monotonic() + 10
    while len(set(server.children()) - set(before)) < 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    assert label(server) == "green"
    assert server.metric("bitinfer_ready") == 2
    assert server.end() == 0
    assert "a worker ended (-9); another takes its place" in "".join(server.lines)


def test_workers_end_when_their_supervisor_is_killed(process: Any, colours_file: Path) -> None:
    from serve_processes import is_alive

    server = process("--backend=reference", "--workers=2", "--linger=0", colours_file)
    children = server.children()
    server.popen.kill()
    server.popen.wait()
    end = time.monotonic() + 10
    while any(is_alive(child) for child in children):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_all_workers_are_counted(process: Any, colours_file: Path) -> None:
    server = process("--backend=reference", "--workers=2", "-q", colours_file)
    for _ in range(20):
        label(server)
    assert server.metric('bitinfer_requests_total{endpoint="classify",status="200"}') == 20
    assert server.metric("bitinfer_workers") == 2
    assert server.metric("bitinfer_ready") == 2
    assert server.end() == 0
    assert len(server.lines) == 1


def test_a_connection_made_before_the_end_is_answered(process: Any, colours_file: Path) -> None:
    server = process("--backend=reference", "--workers=2", "--linger=0.3", colours_file)
    codes: list[int] = []

    def ask() -> None:
        while True:
            try:
                sock = server.connect()
            except OSError:
                return
            with sock:
                sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n")
                codes.append(int(sock.recv(1000)[9:12]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert server.end() == 0
    for thread in threads:
        thread.join()
    assert len(codes) > 10
    assert set(codes) == {200}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("no-such.bin",), 3, "no-such.bin: No such file"),
        (("{}", "{}"), 2, "given twice"),
        (("a b={}",), 2, "no name for a model"),
        (("--port=99999", "{}"), 2, "not a port"),
        (("--deadline=-1", "{}"), 2, "not a number of seconds"),
        (("--deadline=nan", "{}"), 2, "not a number of seconds"),
        (("--host=192.0.2.1", "{}"), 2, "cannot listen on 192.0.2.1"),
        (("--host=no such host", "{}"), 2, "cannot listen on"),
        (("--queue=0", "{}"), 2, "--queue"),
        (("--wasm=a={}", "{}"), 2, "wanted NAME=FILE with one of colours"),
        (("--wasm=colours={}", "{}"), 4, "is no WebAssembly module"),
        (("--wasm=colours={}", "--no-page", "{}"), 2, "--wasm is for the page"),
    ],
)
def test_what_cannot_be_served(
    colours_file: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    given = [argument.format(colours_file) for argument in arguments]
    assert main(["serve", *(["--port=0"] if "--port" not in given[0] else []), *given]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_port_that_is_taken_is_named(process: Any, colours_file: Path, capsys: Any) -> None:
    server = process("--backend=reference", colours_file)
    assert main(["serve", f"--port={server.port}", str(colours_file)]) == 2
    assert f"port {server.port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "httptools"])
def test_a_package_that_is_missing_is_named(
    colours_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve", "--port=0", str(colours_file)]) == 2
    printed = capsys.readouterr().err
    assert f"serving needs {package}, which is not installed" in printed
    assert "'.[serve]'" in printed


def test_the_package_is_imported_without_the_extra() -> None:
    code = (
        "import sys; sys.modules.update(starlette=None, uvicorn=None, httptools=None)\n"
        "from bitinfer.serve import Service, Settings, load_models\n"
        "import bitinfer\n"
        "service = Service(load_models(['examples/lenet5.bin'], 'reference'))\n"
        "try: from bitinfer.serve import Application\n"
        "except bitinfer.MissingExtraError as error: print(error.extra)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "serve\n", done.stderr


def test_the_application_runs_on_a_server_of_others(colours_file: Path) -> None:
    """Any ASGI server runs it; this calls it as they do."""
    from bitinfer.serve import Application, Service, load_models

    service = Service(load_models([str(colours_file)], "reference"))
    import asyncio

    sent: list[dict[str, Any]] = []
    body = [{"type": "http.request", "body": PICTURE, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/colours/classify",
        "query_string": b"top_k=1",
        "headers": [],
    }
    asyncio.run(Application(service)(scope, receive, send))
    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"])["predictions"][0]["label"] == "green"
