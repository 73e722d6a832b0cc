"""A client that keeps connections busy, and says how long answers took.

Each connection sends a request, waits for the answer, and sends the next.  Requests are made
beforehand and answers are only looked at as far as their length, so that little of what is
measured is the client's; with ``processes`` it does not share a core with itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass
class Outcome:
    """What happened: answers by status (0: none came), and seconds of each that came."""

    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    seconds: list[float] = dataclasses.field(default_factory=list)
    took_s: float = 0.0

    def add(self, other: Outcome) -> None:
        """Take over what another client has seen at the same time."""
        self.statuses += other.statuses
        self.seconds += other.seconds
        self.took_s = max(self.took_s, other.took_s)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the times in milliseconds."""
        return float(np.percentile(self.seconds, percent)) * 1e3 if self.seconds else float("nan")

    def describe(self) -> str:
        """Return the figures on one line."""
        rate = len(self.seconds) / self.took_s if self.took_s else 0.0
        counts = ", ".join(
            f"{status or 'lost'}: {n}" for status, n in sorted(self.statuses.items())
        )
        return (
            f"{rate:.0f} requests/s, p50 {self.percentile_ms(50):.3f} ms, "
            f"p99 {self.percentile_ms(99):.3f} ms; {counts}"
        )


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def infer_request(model: str, x: np.ndarray, *, as_bytes: bool = False) -> bytes:
    """Return a request to run a model on float32 ``x``, as JSON or with binary tensors."""
    tensor = {"name": "input", "shape": list(x.shape), "datatype": "FP32"}
    path = f"/v2/models/{model}/infer"
    if not as_bytes:
        data = [round(value, 4) for value in x.ravel().tolist()]
        text = json.dumps({"inputs": [{**tensor, "data": data}]}).encode()
        return post(path, text, "Content-Type: application/json")
    raw = np.ascontiguousarray(x, "<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(document).encode()
    return post(path, text + raw, f"Inference-Header-Content-Length: {len(text)}")


class _Client(asyncio.Protocol):
    """One connection: requests one after the other until the time is over.

    A connection that the server closes after an answer is opened anew; a request that was sent and
    not answered counts as lost.
    """

    def __init__(self, request: bytes, outcome: Outcome, until: float, pause_s: float) -> None:
        self._request, self._outcome, self._until = request, outcome, until
        self._pause_s = pause_s
        self.done = asyncio.get_running_loop().create_future()
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._begin()

    def _begin(self) -> None:
        self._buffer = b""
        self._started = time.perf_counter()
        if self._started >= self._until:
            self._transport.close()
            return
        if self._transport.is_closing():
            return
        self._waiting = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._waiting = False
        self._outcome.seconds.append(time.perf_counter() - self._started)
        self._outcome.statuses[int(head[9:12])] += 1
        if b"connection: close" in lower:
            self._transport.close()
        elif self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self._begin)
        else:
            self._begin()

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting:
            self._outcome.statuses[0] += 1
        if not self.done.done():
            self.done.set_result(None)


async def _keep_busy(
    port: int, request: bytes, clients: int, seconds: float, pause_s: float
) -> Outcome:
    outcome = Outcome()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    until = started + seconds

    async def one() -> None:
        while time.perf_counter() < until:
            try:
                _, client = await loop.create_connection(
                    lambda: _Client(request, outcome, until, pause_s), "127.0.0.1", port
                )
            except OSError:  # the port is closed: nothing was sent
                await asyncio.sleep(0.02)
                continue
            await client.done

    await asyncio.gather(*(one() for _ in range(clients)))
    outcome.took_s = time.perf_counter() - started
    return outcome


def _in_process(arguments: tuple[int, bytes, int, float, float]) -> Outcome:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_keep_busy(*arguments))
    return uvloop.run(_keep_busy(*arguments))


def keep_busy(
    port: int,
    request: bytes,
    *,
    clients: int,
    seconds: float,
    processes: int = 1,
    pause_s: float = 0.0,
) -> Outcome:
    """Send ``request`` over ``clients`` connections for some seconds."""
    if processes == 1:
        return _in_process((port, request, clients, seconds, pause_s))
    shares: Sequence[int] = [clients // processes] * processes
    outcome = Outcome()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        jobs = [(port, request, share, seconds, pause_s) for share in shares]
        for part in pool.map(_in_process, jobs):
            outcome.add(part)
    return outcome
