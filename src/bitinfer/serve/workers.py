"""Several processes that share a port: forked from one that has loaded the models.

Each says that it has passed its self-test before the port opens.  The process that forks them
computes nothing: it forks another worker for one that dies, and waits.  Workers hold one end of a
pipe; when the other one closes, because this process was told to end or is gone, they end too.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable

from bitinfer.errors import BitInferError
from bitinfer.serve.service import Service

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_BACKLOG = 2048
"""Connections that the kernel may hold until a worker accepts them; uvicorn's figure."""
_SHORTEST_LIFE_S = 1.0
"""A worker that dies sooner is not replaced at once."""
_MARGIN_S = 5.0
"""What a worker may take beyond its bounds before it is killed."""


class WorkerError(BitInferError, RuntimeError):
    """A worker process could not begin its work."""


class Supervisor:
    """Forks ``count`` workers and stays until all have ended."""

    def __init__(self, service: Service, sock: socket.socket, count: int) -> None:
        self._service, self._sock, self._count = service, sock, count
        self._lifeline, self._alive = os.pipe()
        """Workers read from the first; nobody writes, and it ends with this process."""
        self._workers: dict[int, tuple[int, float]] = {}
        """Row of metrics and time of birth, by process id."""
        self._ready_end = -1

    def run(self, when_open: Callable[[], None] | None = None) -> int:
        """Return the exit code: 0 if every worker has ended in good order.

        Raises:
            WorkerError: a worker died before it was ready.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            self._start_all()
            if when_open is not None:
                when_open()
            return self._supervise()
        finally:
            self._kill(signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start_all(self) -> None:
        ready, report = os.pipe()
        gate, opener = os.pipe()
        for row in range(self._count):
            self._fork(row, report, gate, close=(ready, opener))
        os.close(report)
        os.close(gate)
        said = 0
        while said < self._count:
            select.select([ready], [], [])
            data = os.read(ready, self._count)
            if not data:
                raise WorkerError("a worker ended before it was ready; its message is above")
            said += len(data)
        self._sock.listen(_BACKLOG)
        os.close(ready)
        os.close(opener)  # which the workers wait for

    def _fork(
        self, row: int, report: int | None, gate: int | None, close: tuple[int, ...] = ()
    ) -> None:
        process = os.fork()
        if process:
            self._workers[process] = (row, time.monotonic())
            return
        code = 1
        try:
            for descriptor in (self._alive, *close):
                os.close(descriptor)
            code = self._work(row, report, gate)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # no exit handlers of the parent, and no waiting for threads

    def _work(self, row: int, report: int | None, gate: int | None) -> int:
        from bitinfer.serve import server

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; SIGTERM follows
        service = self._service
        service.metrics.use_row(row)
        service.models.self_test()
        service.metrics.set_gauge("ready", 1)
        worker = server.Server(service, lifeline=self._lifeline)
        if report is not None and gate is not None:
            os.write(report, b".")
            os.close(report)
            os.read(gate, 1)
            os.close(gate)
        # From here on SIGTERM, which has been kept back, is answered by the server.
        signal.signal(signal.SIGTERM, worker.handle_exit)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        worker.run(sockets=[self._sock])
        return 0

    def _supervise(self) -> int:
        settings = self._service.settings
        failed = False
        kill_at = float("inf")
        while self._workers:
            number = signal.sigtimedwait(_WATCHED, 1.0)
            if number is not None and number.si_signo != signal.SIGCHLD and kill_at == float("inf"):
                self._sock.close()  # or the port would stay open when the workers have closed it
                os.close(self._alive)
                kill_at = time.monotonic() + settings.linger_s + settings.drain_s + _MARGIN_S
            if time.monotonic() > kill_at:
                self._kill(signal.SIGKILL)
            for row, born, code in self._reap():
                ending = kill_at < float("inf")
                failed |= ending and code != 0
                if not ending:
                    sys.stderr.write(
                        f"bitinfer: a worker ended ({code}); another takes its place\n"
                    )
                    time.sleep(max(0.0, min(1.0, born + _SHORTEST_LIFE_S - time.monotonic())))
                    self._fork(row, None, None)
        return 1 if failed else 0

    def _reap(self) -> list[tuple[int, float, int]]:
        ended = []
        for process in list(self._workers):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                row, born = self._workers.pop(process)
                ended.append((row, born, os.waitstatus_to_exitcode(status)))
        return ended

    def _kill(self, number: signal.Signals) -> None:
        for process in self._workers:
            os.kill(process, number)
