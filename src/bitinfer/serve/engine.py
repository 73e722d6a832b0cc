"""Inference off the event loop: a bounded pool, deadlines, cancellation.

A request that finds the queue full is refused at once, so that memory stays bounded and who waits
knows it.  One that waits longer than its deadline is taken out of the queue; one that computes
already is told to stop (:class:`Call`), and keeps its place until it has.  So does one whose client
has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bitinfer.serve.protocol import RequestError

_T = TypeVar("_T")

_WATCH_AFTER_S = 0.02
"""Whether the client is still there is asked only of requests that take longer: asking costs."""


class ClientGone(Exception):  # noqa: N818 - nobody is to blame
    """Nobody waits for the answer."""


class Call:
    """What a computation asks whether anybody still waits for it."""

    __slots__ = ("_is_stopped",)

    def __init__(self) -> None:
        self._is_stopped = False

    def stop(self) -> None:
        """Let the next :meth:`check` raise."""
        self._is_stopped = True

    def check(self) -> None:
        """Raise ClientGone if nobody waits."""
        if self._is_stopped:
            raise ClientGone


class Engine:
    """Threads that compute.  All methods belong to the thread of the event loop.

    Threads are started with the first request, and anew in a child of fork.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self._threads = threads
        self._limit = threads + queue
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """Requests that compute or wait for a thread."""
        return self._admitted if self._process == os.getpid() else 0

    async def run(
        self,
        work: Callable[[Call], _T],
        *,
        timeout_s: float,
        receive: Callable[[], Awaitable[Any]],
    ) -> _T:
        """Return ``work(call)``, computed by a thread.

        Raises:
            RequestError: of status 503: the queue is full, or ``timeout_s`` seconds have passed.
            ClientGone: ``receive``, that of ASGI, says that the client has closed the connection.
        """
        pool = self._pool_of_this_process()
        if self._admitted >= self._limit:
            raise RequestError(503, f"{self._admitted} requests are waiting; try again later")
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_T] = loop.create_future()
        call = Call()
        self._admitted += 1
        job = pool.submit(self._compute, work, call, loop, outcome)
        timer: asyncio.TimerHandle
        watching: list[asyncio.Task[None]] = []

        def watch() -> None:
            nonlocal timer
            timer = loop.call_later(max(0.0, timeout_s - _WATCH_AFTER_S), expire)
            watching.append(loop.create_task(_until_gone(receive, outcome)))

        def expire() -> None:
            if not outcome.done():
                message = f"no answer within {timeout_s:.3g} seconds; try again later"
                outcome.set_exception(RequestError(503, message))

        timer = loop.call_later(_WATCH_AFTER_S, watch)
        try:
            return await outcome
        finally:
            timer.cancel()
            for task in watching:
                task.cancel()
            if not job.done():
                call.stop()
                if job.cancel():  # it has not begun
                    self._admitted -= 1

    def close(self) -> None:
        """Start nothing more; what computes already goes on to its end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _pool_of_this_process(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="bitinfer")
            self._process, self._admitted = os.getpid(), 0
        return self._pool

    def _compute(
        self,
        work: Callable[[Call], _T],
        call: Call,
        loop: asyncio.AbstractEventLoop,
        outcome: asyncio.Future[_T],
    ) -> None:
        """Run in a thread of the pool; whatever is raised goes to who waits."""
        result: Any = None
        problem: BaseException | None = None
        try:
            call.check()
            result = work(call)
        except BaseException as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits
            loop.call_soon_threadsafe(self._finish, outcome, result, problem)

    def _finish(
        self, outcome: asyncio.Future[_T], result: Any, problem: BaseException | None
    ) -> None:
        self._admitted -= 1
        if outcome.done():
            return
        if problem is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(problem)


async def _until_gone(receive: Callable[[], Awaitable[Any]], outcome: asyncio.Future[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not outcome.done():
        outcome.set_exception(ClientGone())
