"""What a server meets that is not kind: too many, too large, too slow, gone, out of memory."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bitinfer.graph import GraphBuilder
from bitinfer.model import Model, Preprocessing
from bitinfer.session import Session
from helpers import encode, noise

Serving = Callable[..., Any]

X = np.zeros((8, 8, 3), np.float32)
INFER = {"inputs": [{"name": "input", "shape": [8, 8, 3], "datatype": "FP32", "data": [0.0] * 192}]}
BODY = json.dumps(INFER).encode()
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n"
LENGTH = f"Content-Length: {len(BODY)}".encode()
HEAD = POST + LENGTH + b"\r\n\r\n"


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes the connection."""
    parts = []
    try:
        while part := sock.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def many(client: Any, count: int) -> list[tuple[int, Any, dict[str, str]]]:
    """Send requests at once; return the answers."""
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/v2/models/m/infer", INFER)))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_beyond_the_queue_requests_are_refused_and_the_others_answered(
    serving: Serving, slow: Any
) -> None:
    client = serving({"m": slow}, threads=2, queue=3)
    slow.seconds = 0.3
    answers = many(client, 20)
    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) == {200, 503}
    assert statuses[200] >= 5
    for status, answer, headers in answers:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert "waiting" in answer["error"]
    slow.seconds = 0.0
    assert client.post("/v2/models/m/infer", INFER)[0] == 200
    assert client.service.engine.admitted == 0
    assert client.service.buffered_bytes == 0
    assert client.metric("bitinfer_in_flight") == 0


def test_who_waits_longer_than_the_deadline_is_told(serving: Serving, slow: Any) -> None:
    client = serving({"m": slow}, threads=1, queue=10, deadline_s=0.2)
    slow.seconds = 0.5
    slow.calls = 0
    started = time.monotonic()
    answers = many(client, 5)
    assert {status for status, _, _ in answers} == {503}
    assert time.monotonic() - started < 2
    assert all("no answer within 0.2 seconds" in answer["error"] for _, answer, _ in answers)
    eventually(lambda: client.service.engine.admitted == 0)
    assert slow.calls == 1  # the others were taken out of the queue


@pytest.mark.parametrize("samples", [1, 30])
def test_what_is_computed_is_stopped_when_nobody_waits(
    serving: Serving, slow: Any, samples: int
) -> None:
    client = serving({"m": slow}, threads=1, deadline_s=0.2)
    slow.steps, slow.step_seconds = 0, 0.15
    tensor = {"shape": [samples, 8, 8, 3], "data": [0.0] * 192 * samples}
    inputs = [{**INFER["inputs"][0], **tensor}]
    assert client.post("/v2/models/m/infer", {"inputs": inputs})[0] == 503
    eventually(lambda: client.service.engine.admitted == 0, 2)
    assert slow.steps < 4
    slow.step_seconds = 0.0
    assert client.post("/v2/models/m/infer", INFER)[0] == 200


def long_model(layers: int = 100) -> Model:
    """Return a network of a few kilobytes whose one sample takes many seconds."""
    b = GraphBuilder("long", (8, 8, 3))
    x = b.pad2d(b.input, (120, 120, 120, 120))
    weight = np.ones((64, 3, 3, 3), np.float32)
    x = b.conv2d(x, weight, padding=1)
    weight = np.full((64, 3, 3, 64), 2.0**-9, np.float32)
    for _ in range(layers):
        x = b.conv2d(x, weight, padding=1)
    preprocessing = Preprocessing("rgb", (0.0,) * 3, (1.0,) * 3, resize=(8, 8))
    return Model(*b.build(b.global_pool2d(x, "max")), preprocessing=preprocessing)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/m/infer", BODY),
        ("/v2/models/m/classify", encode(noise())),
        ("/page/models/m/explain", encode(noise())),
        ("/page/models/m/layers/1", encode(noise())),
    ],
)
def test_one_long_sample_is_stopped_at_its_deadline(
    serving: Serving, path: str, body: bytes
) -> None:
    pytest.importorskip("bitinfer.backends.native.executor", reason="no extension")
    from bitinfer.serve.models import Models, ServedModel

    session = Session(long_model(), "native")
    session.bind(pixels=path != "/v2/models/m/infer")  # else the deadline might pass meanwhile
    client = serving(Models([ServedModel("m", "1", session)]), threads=1, deadline_s=0.2)
    started = time.monotonic()
    status, answer, headers = client.post(path, body)
    assert (status, headers["retry-after"]) == (503, "1")
    assert "no answer within 0.2 seconds" in answer["error"]
    eventually(lambda: client.service.engine.admitted == 0, 2)
    assert time.monotonic() - started < 2  # where the sample takes several seconds


def test_a_client_that_goes_takes_its_request_with_it(serving: Serving, slow: Any) -> None:
    client = serving({"m": slow}, threads=1, queue=10)
    slow.calls, slow.seconds = 0, 0.3
    socks = [client.connect() for _ in range(4)]
    for sock in socks:
        sock.sendall(HEAD + BODY)
    eventually(lambda: client.service.engine.admitted == 4)
    for sock in socks:
        sock.close()
    eventually(lambda: client.service.engine.admitted == 0, 2)
    assert slow.calls == 1
    assert client.metric('bitinfer_requests_total{endpoint="infer",status="499"}') == 4
    assert client.service.buffered_bytes == 0


def test_memory_that_cannot_be_had_is_a_503_and_the_server_lives(
    serving: Serving, slow: Any
) -> None:
    client = serving({"m": slow})
    slow.out_of_memory = True
    status, answer, headers = client.post("/v2/models/m/infer", INFER)
    assert status == 503
    assert "not enough memory" in answer["error"]
    assert headers["retry-after"] == "1"
    slow.out_of_memory = False
    assert client.post("/v2/models/m/infer", INFER)[0] == 200


def test_what_nobody_foresaw_is_a_500_without_its_text(
    serving: Serving, slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving({"m": slow})
    monkeypatch.setattr(slow, "run", lambda x, **_: 1 / 0)
    status, answer, _ = client.post("/v2/models/m/infer", INFER)
    assert (status, answer) == (500, {"error": "internal error; the server's log says more"})
    assert client.metric('bitinfer_requests_total{endpoint="infer",status="500"}') == 1


# --- bodies --------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    serving: Serving, colours: Session
) -> None:
    client = serving({"m": colours}, max_body_bytes=10_000, max_buffered_bytes=20_000)
    with client.connect() as sock:
        sock.sendall(HEAD.replace(str(len(BODY)).encode(), b"10001"))
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 10000 bytes" in answer
    assert client.service.buffered_bytes == 0
    assert client.post("/v2/models/m/classify", encode(noise()))[0] == 200


def test_a_body_without_a_length_is_refused_when_it_has_grown_too_large(
    serving: Serving, colours: Session
) -> None:
    client = serving({"m": colours}, max_body_bytes=100_000, max_buffered_bytes=200_000)
    chunked = HEAD.replace(LENGTH, b"Transfer-Encoding: chunked")
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    with client.connect() as sock:
        sock.sendall(chunked)
        try:
            for _ in range(1000):
                sock.sendall(chunk)
        except OSError:
            pass
        else:
            pytest.fail("four megabytes were taken")
    assert client.service.buffered_bytes == 0
    with client.connect() as sock:
        sock.sendall(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


def test_the_bytes_of_all_requests_together_are_bounded(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, max_body_bytes=10_000, max_buffered_bytes=25_000)
    socks = [client.connect() for _ in range(3)]
    for sock in socks[:2]:
        sock.sendall(HEAD.replace(str(len(BODY)).encode(), b"10000"))
    eventually(lambda: client.service.buffered_bytes == 20_000)
    socks[2].sendall(HEAD.replace(str(len(BODY)).encode(), b"10000"))
    assert b" 503 " in socks[2].recv(1000)
    for sock in socks:
        sock.close()
    eventually(lambda: client.service.buffered_bytes == 0)


def test_a_compressed_body_is_refused(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours})
    status, answer, _ = client.post("/v2/models/m/infer", BODY, content_encoding="gzip")
    assert status == 415
    assert "gzip" in answer["error"]


# --- slow clients --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [b"", b"P", b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nX-A:"]
)
def test_a_head_that_does_not_come_is_not_waited_for(
    serving: Serving, colours: Session, sent: bytes
) -> None:
    client = serving({"m": colours}, head_timeout_s=0.3)
    started = time.monotonic()
    with client.connect() as sock:
        sock.sendall(sent)
        assert read_all(sock) == b""
    assert 0.2 < time.monotonic() - started < 3


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(
    serving: Serving, colours: Session
) -> None:
    client = serving({"m": colours}, head_timeout_s=0.5)
    started = time.monotonic()
    with client.connect() as sock:
        try:
            for byte in HEAD * 100:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass
        else:
            pytest.fail("the server has waited")
    assert time.monotonic() - started < 4


def test_a_body_that_does_not_come_is_a_408(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, body_timeout_s=0.3)
    with client.connect() as sock:
        sock.sendall(HEAD + BODY[:10])
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert client.service.buffered_bytes == 0


def test_a_head_that_does_not_end_is_a_431(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, max_head_bytes=5000)
    with client.connect() as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\n" + b"X-Header: 0123456789\r\n" * 400)
        assert read_all(sock).startswith(b"HTTP/1.1 431 ")


def test_an_idle_connection_is_closed(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, idle_timeout_s=1.0)
    with client.connect() as sock:
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
        started = time.monotonic()
        assert read_all(sock).endswith(b'{"live":true}')
    assert time.monotonic() - started < 4


def test_an_answer_that_nobody_reads_is_not_kept(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, write_timeout_s=0.5)
    with client.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            for _ in range(3000):
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
        except OSError:
            pass
        eventually(lambda: not client.server.server_state.connections)


def test_connections_beyond_the_limit_are_refused(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours}, max_connections=3)
    socks = [client.connect() for _ in range(3)]
    eventually(lambda: len(client.server.server_state.connections) == 3)
    with client.connect() as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 503 ")
    for sock in socks:
        sock.close()
    eventually(lambda: not client.server.server_state.connections)
    assert client.get("/v2")[0] == 200


def test_requests_are_not_piled_up(serving: Serving, slow: Any) -> None:
    client = serving({"m": slow})
    slow.seconds = 0.2
    with client.connect() as sock:
        sock.sendall((HEAD + BODY) * 30)
        read_all(sock)
    eventually(lambda: client.service.engine.admitted == 0)
    assert slow.calls < 5
    assert client.get("/v2")[0] == 200


def test_a_few_requests_at_once_are_answered_in_order(serving: Serving, colours: Session) -> None:
    client = serving({"m": colours})
    last = b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n"
    with client.connect() as sock:
        sock.sendall((HEAD + BODY) * 5 + last)
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 200 ") == 6
    assert answer.endswith(b'{"live":true}')


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_a_400(serving: Serving, colours: Session, sent: bytes) -> None:
    client = serving({"m": colours})
    with client.connect() as sock:
        sock.sendall(sent)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    assert client.get("/v2")[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters are Linux's")
def test_a_port_that_is_about_to_close_begins_no_connection_and_keeps_those_made() -> None:
    from bitinfer.serve import server

    with server.bind("127.0.0.1", 0) as sock:
        sock.listen()
        address = sock.getsockname()
        with socket.create_connection(address, timeout=5) as made:
            server._begin_no_more(sock)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            (accepted,) = server._accept_all(sock)
            sock.close()
            with accepted:
                made.sendall(b"question")
                accepted.setblocking(True)
                assert accepted.recv(100) == b"question"
                accepted.sendall(b"answer")
                assert made.recv(100) == b"answer"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)


def test_settings_that_bound_nothing_are_refused() -> None:
    from bitinfer.errors import UsageError
    from bitinfer.serve import Settings

    for wrong in (
        {"queue": -1},
        {"max_batch": 0},
        {"deadline_s": float("inf")},
        {"deadline_s": float("nan")},
        {"max_body_bytes": 10**12},
    ):
        with pytest.raises(UsageError):
            Settings(**wrong)
