"""The server under load: too much of it, signals in the middle of it, a lot of it, and nonsense.

Each is short here, and as long as the figures in docs/serving.md with ``--long``.
"""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_load import infer_request, keep_busy, post
from serve_processes import is_alive

from helpers import binary_model, encode, noise, save

REQUEST = infer_request("m", np.zeros((1, 8, 8, 1), np.float32))


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A spec of a small binary network named m."""
    return f"m={save(binary_model(), tmp_path / 'm.bin')}"


def times(request: pytest.FixtureRequest, short: int, long: int) -> int:
    return long if request.config.getoption("--long") else short


def resident_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0]) * 1024


def descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def test_ten_times_too_many_requests(
    process: Any, model: str, request: pytest.FixtureRequest
) -> None:
    seconds = times(request, 3, 60)
    server = process("-q", "--threads=1", "--queue=8", model)
    keep_busy(server.port, REQUEST, clients=90, seconds=1)
    before = resident_bytes(server.popen.pid)
    outcome = keep_busy(server.port, REQUEST, clients=90, seconds=seconds)
    assert set(outcome.statuses) == {200, 503}, outcome.describe()
    ended = time.monotonic()
    assert server.post("/v2/models/m/infer", REQUEST.partition(b"\r\n\r\n")[2])[0] == 200
    assert time.monotonic() - ended < 1
    assert resident_bytes(server.popen.pid) - before < 8 << 20
    assert server.end() == 0


def test_signals_under_load_lose_nothing(
    process: Any, model: str, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(0)
    for number in range(times(request, 4, 100)):
        server = process("-q", f"--workers={1 + number % 2}", model)
        everybody = [server.popen.pid, *server.children()]
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(keep_busy, server.port, REQUEST, clients=16, seconds=2)
            time.sleep(0.3 + rng.random() / 3)
            assert server.end() == 0
            outcome = job.result()
        assert set(outcome.statuses) == {200}, (number, outcome.describe())
        assert not any(is_alive(one) for one in everybody)


def test_memory_descriptors_and_threads_stay_as_they_are(
    process: Any, model: str, request: pytest.FixtureRequest
) -> None:
    warm_up, counted = times(request, 2_000, 100_000), times(request, 4_000, 1_000_000)
    server = process("-q", model)

    def send(count: int) -> None:
        done = 0
        while done < count:
            done += len(keep_busy(server.port, REQUEST, clients=8, seconds=1).seconds)

    def state() -> tuple[int, int, int]:
        time.sleep(0.5)
        pid = server.popen.pid
        return resident_bytes(pid), descriptors(pid), threads(pid)

    send(warm_up)
    before = state()
    asked = server.metric('bitinfer_requests_total{endpoint="infer",status="200"}')
    send(counted)
    after = state()
    asked = server.metric('bitinfer_requests_total{endpoint="infer",status="200"}') - asked
    assert after[1:] == before[1:]
    slope = (after[0] - before[0]) / asked
    print(f"{asked:.0f} requests, {slope:.3f} bytes of resident memory for each")
    # A few pages are within the noise of a short run.
    assert slope < (1 if request.config.getoption("--long") else 256)


# --- nonsense ------------------------------------------------------------------------------------

_GET = b"GET /v2/models/m HTTP/1.1\r\nHost: h\r\n\r\n"
_CHUNKED = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)
_PATIENCE_S = 0.05
_PIECES = (
    b"\r\n\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Inference-Header-Content-Length: 7\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"[" * 500,
    b"\x00",
    b"-1",
    b'"binary_data_size": 1e9',
    b"%00%ff%2e%2e",
)


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return a request with something done to it."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 6)):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        kind = rng.randrange(6)
        if kind == 0:
            data[at:at] = rng.choice(_PIECES)
        elif kind == 1:
            del data[at : min(end, at + 20)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 8))
        elif kind == 3 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            data = data[: max(1, at)]
        else:
            data += rng.choice(seeds)
    return bytes(data)


def _received(sock: socket.socket) -> bytes:
    """Return the next bytes; when none come for a while, say that no more will be sent."""
    try:
        return sock.recv(1 << 16)
    except TimeoutError:
        sock.settimeout(30)
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(1 << 16)


def test_raw_nonsense_is_answered_or_cut_off(
    process: Any, model: str, request: pytest.FixtureRequest
) -> None:
    count = times(request, 400, 100_000)
    x = np.zeros((1, 8, 8, 1), np.float32)
    seeds = [
        _GET,
        _CHUNKED,
        REQUEST,
        infer_request("m", x, as_bytes=True),
        post("/v2/models/m/classify?top_k=2", encode(noise(8, 8, 1))),
    ]
    server = process("-q", model)
    lock, statuses, slowest = threading.Lock(), dict[bytes, int](), [0.0]

    def attack(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(count // 8):
            started = time.monotonic()
            with server.connect() as sock:
                answer = bytearray()
                try:
                    sock.sendall(mutated(rng, seeds))
                    sock.settimeout(_PATIENCE_S)
                    while part := _received(sock):
                        answer += part
                except ConnectionError:
                    pass
            took = time.monotonic() - started
            with lock:
                slowest[0] = max(slowest[0], took)
                for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer):
                    statuses[status] = statuses.get(status, 0) + 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attack, range(8)))
    print(statuses, f"slowest {slowest[0]:.2f} s")
    assert b"500" not in statuses, "".join(server.lines)[-5000:]
    assert {b"200", b"400", b"404"} <= set(statuses)
    assert slowest[0] < 10
    assert server.post("/v2/models/m/infer", REQUEST.partition(b"\r\n\r\n")[2])[0] == 200
    assert server.metric('bitinfer_requests_total{endpoint="infer",status="500"}') == 0
    assert server.end() == 0
    assert not any("Traceback" in line for line in server.lines), "".join(server.lines)


# --- models that come and go ---------------------------------------------------------------------

_CYCLES = """
import gc, re, sys
import numpy as np
import bitinfer

def resident():
    with open("/proc/self/status") as file:
        return int(re.findall(r"^VmRSS:\\s+(\\d+)", file.read(), re.MULTILINE)[0]) * 1024

def cycle(count):
    for _ in range(count):
        session = bitinfer.load(sys.argv[1])
        session.run(np.zeros((8, 8, 1), np.uint8))
        del session

cycle(int(sys.argv[2]) // 4)
gc.collect()
before = resident()
cycle(int(sys.argv[2]))
gc.collect()
print((resident() - before) / int(sys.argv[2]))
"""


def test_sessions_that_come_and_go_leave_nothing(
    model: str, request: pytest.FixtureRequest
) -> None:
    count = times(request, 300, 10_000)
    done = subprocess.run(
        [sys.executable, "-c", _CYCLES, model.removeprefix("m="), str(count)],
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
    )
    print(f"{float(done.stdout):.1f} bytes of resident memory for each of {count} cycles")
    assert float(done.stdout) < (100 if request.config.getoption("--long") else 4096)
