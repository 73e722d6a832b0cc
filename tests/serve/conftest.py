"""Servers to talk to: one in a thread with settings of one's own, one as a process."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_processes import TIMEOUT_S, Client, Process

from bitinfer.model import Model
from bitinfer.session import Session
from helpers import colour_model, save

_PACKAGES = ("starlette", "uvicorn", "httptools")

_missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["*"] if _missing else []


def pytest_report_collectionfinish() -> list[str]:
    """Say that nothing of this folder is run, if so."""
    why = f"bitinfer: tests/serve left out, without the extra 'serve' ({', '.join(_missing)})"
    return [why] if _missing else []


class SlowSession(Session):
    """A session whose calls or steps take a time of their own, or run out of memory."""

    seconds = 0.0
    step_seconds = 0.0
    out_of_memory = False

    def __init__(self, model: Model) -> None:
        super().__init__(model, "reference")
        self.calls = self.steps = 0

    def run(self, x: Any, out: Any = None, *, check: Any = None) -> Any:
        self.calls += 1
        if self.out_of_memory:
            raise MemoryError
        time.sleep(self.seconds)

        def slowly() -> None:
            self.steps += 1
            time.sleep(self.step_seconds)
            if check is not None:
                check()

        return super().run(x, out, check=slowly)


@pytest.fixture
def serving() -> Iterator[Callable[..., Client]]:
    """Start a server in a thread: ``serving({"name": session}, setting=...)``.

    ``Models`` in the place of the sessions are served without a self-test.
    """
    from bitinfer.serve import Service, Settings, models, server

    def tested(sessions: Any) -> Any:
        return models.from_sessions(sessions) if isinstance(sessions, dict) else sessions

    with contextlib.ExitStack() as stack:

        def start(sessions: Any, modules: Any = None, **settings: Any) -> Client:
            settings = {"access_log": False, "linger_s": 0.0, "drain_s": 5.0, **settings}
            service = Service(tested(sessions), Settings(**settings), modules=modules)
            sock = server.bind("127.0.0.1", 0)
            port = sock.getsockname()[1]
            is_open = threading.Event()
            running = server.Server(service, when_open=is_open.set)
            thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
            thread.start()
            stack.callback(sock.close)
            stack.callback(thread.join, TIMEOUT_S)
            stack.callback(running.handle_exit, signal.SIGTERM, None)
            assert is_open.wait(TIMEOUT_S)
            client = Client(port)
            client.service, client.server = service, running  # type: ignore[attr-defined]
            return client

        yield start


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    """Start ``bitinfer serve`` with arguments; what is left of it is killed at the end."""
    started: list[Process] = []

    def start(*arguments: object) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def colours() -> Session:
    """A session that tells colours apart, on the reference backend."""
    return Session(colour_model(), "reference")


@pytest.fixture
def colours_file(tmp_path: Path) -> Path:
    """The same as a model file."""
    return save(colour_model(), tmp_path / "colours.bin")


@pytest.fixture
def slow() -> SlowSession:
    """A session whose calls can be made slow."""
    return SlowSession(colour_model())
