"""A client for a server, and ``bitinfer serve`` in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

TIMEOUT_S = 30.0


class Client:
    """Requests to a server on this machine, one connection for each."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, body (JSON decoded) and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            if isinstance(body, dict):
                body = json.dumps(body).encode()
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            if found.get("content-type") == "application/json":
                return response.status, json.loads(data), found
            return response.status, data, found

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        return self.request("GET", path)

    def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        return self.request(
            "POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def metric(self, series: str) -> float:
        """Return the value of a series, such as ``name{label="value"}``."""
        _, text, _ = self.get("/metrics")
        found = re.search(rf"^{re.escape(series)} (\S+)$", text.decode(), re.MULTILINE)
        assert found, series
        return float(found[1])


class Process(Client):
    """``bitinfer serve`` in a process of its own."""

    def __init__(self, *arguments: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "bitinfer", "serve", "--port=0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stderr is not None
        self.lines: list[str] = []
        found = None
        for line in self.popen.stderr:
            self.lines.append(line)
            if found := re.search(r" at http://[\w.]+:(\d+)/$", line):
                break
        if found is None:
            self.popen.stderr.close()
            self.popen.wait()
            raise AssertionError("".join(self.lines))
        super().__init__(int(found[1]))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr:
            self.lines.extend(self.popen.stderr)

    def kill(self) -> None:
        """Kill the process and its workers, if they are still there."""
        if self.popen.poll() is None:
            for child in self.children():
                os.kill(child, signal.SIGKILL)
            self.popen.kill()
            self.popen.wait()
        self._reader.join(TIMEOUT_S)

    def children(self) -> list[int]:
        """Return the process ids of the workers."""
        path = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        return [int(text) for text in path.read_text().split()]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        self.popen.send_signal(number)
        code = self.popen.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code


def is_alive(process: int) -> bool:
    """Tell whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
