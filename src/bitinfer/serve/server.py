"""uvicorn, with bounds on what a connection may cost, and an end that loses no request.

From the first SIGTERM on, every answer closes its connection and connections are still accepted,
for ``linger_s``: whoever asks at that time is answered.  Then the port closes, and what is under
way is finished, for at most ``drain_s``.

A connection that the kernel has made and nobody has accepted is reset when a port closes.  So
before it does, packets that would begin another one are dropped (Linux), those that have begun are
completed, and all are accepted.  Who was dropped begins again a second later, and is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bitinfer.serve.app import Application
from bitinfer.serve.service import Service
from bitinfer.serve.settings import Settings

_MAX_PIPELINED = 16
"""Requests that a client may send before it has read the answer to the first."""
_TICKS_BETWEEN_LOOKS = 5
_FIRST_REQUEST_S = 1.0
"""For the first request of a connection that was made before."""
_HANDSHAKE_S = 0.1
"""For connections that have begun to be made when the port is about to close."""
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags of the TCP header
    (0x45, 1, 0, 0x02),  # SYN is set: skip one
    (0x06, 0, 0, 0xFFFFFFFF),  # take the packet
    (0x06, 0, 0, 0),  # drop it
)
"""A classic BPF program, struct sock_filter of linux/filter.h."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Config(uvicorn.Config):
    """uvicorn's configuration, with a service."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        super().__init__(
            Application(service),
            http=Connection,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="error",
            server_header=False,
            proxy_headers=False,  # who asks is the peer, not what a header says
            timeout_keep_alive=max(1, round(settings.idle_timeout_s)),
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        )
        self.service = service


class Connection(HttpToolsProtocol):
    """A connection that may neither dawdle nor pile up work."""

    config: Config

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self._phase = "head"
        self._since = self.loop.time()
        self._head_bytes = 0
        self._unread = 0
        self._unread_since = 0.0
        self._answering: Any = None
        if len(self.connections) > self.config.service.settings.max_connections:
            self._refuse(503, "too many connections; try again later")

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless the head of a request has grown too long."""
        if self._phase == "idle":
            self._begin_head()
        super().data_received(data)
        if self._phase == "head":
            self._head_bytes += len(data)
            if self._head_bytes > self.config.service.settings.max_head_bytes:
                self._refuse(431, "the head of the request is too long")

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._cut()
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        """Begin the body of a request."""
        self._phase, self._since = "body", self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; its answer has a deadline of its own."""
        self._phase = "idle"
        super().on_message_complete()

    def _begin_head(self) -> None:
        self._phase, self._since, self._head_bytes = "head", self.loop.time(), 0

    def end_if_overdue(self, now: float, settings: Settings) -> None:
        """Cut the connection off if its client is too slow in sending or in reading."""
        limit = {
            "head": settings.head_timeout_s,
            # Who reads the body answers 408 first; this is for bodies that nobody reads.
            "body": settings.body_timeout_s + 1.0,
            "idle": float("inf"),
        }[self._phase]
        if now - self._since > limit and not self.flow.read_paused:
            self._cut()
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread != self._unread:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > settings.write_timeout_s:
            self._cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, and forget those behind it."""
        self._disconnect()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _disconnect(self) -> None:
        # uvicorn tells the request that came last, which waits behind this one.
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _cut(self) -> None:
        self._disconnect()
        self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        body = b'{"error":"%s"}' % message.encode()
        head = (
            f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which ends in two steps; see above.

    ``lifeline`` is a descriptor that reads as ended when the process that supervises this one has
    gone: then the server ends too.
    """

    config: Config

    def __init__(
        self,
        service: Service,
        *,
        lifeline: int | None = None,
        when_open: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(Config(service))
        self._service = service
        self._lifeline = lifeline
        self._ends_port = lifeline is None
        """Whether the port ends with this process: another worker may go on with it."""
        self._when_open = when_open
        self._closes_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port."""
        if self._lifeline is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._lifeline, self._supervisor_gone, loop, self._lifeline)
        await super().startup(sockets)
        if self._when_open is not None:
            self._when_open()

    def _supervisor_gone(self, loop: asyncio.AbstractEventLoop, lifeline: int) -> None:
        loop.remove_reader(lifeline)
        self._ends_port = True
        self.handle_exit(signal.SIGTERM, None)

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections, and tell whether it is time to end."""
        now = asyncio.get_running_loop().time()
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            for connection in self._connections():
                connection.end_if_overdue(now, self._service.settings)
            self._service.metrics.set_gauge("connections", len(self.server_state.connections))
        if time.monotonic() >= self._closes_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and finish what is under way."""
        accepted = []
        if self._ends_port:
            for sock in sockets or []:
                _begin_no_more(sock)
            await asyncio.sleep(_HANDSHAKE_S)
            for sock in sockets or []:
                accepted += _accept_all(sock)
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for sock in accepted:
            await loop.connect_accepted_socket(self._new_connection, sock)
        # uvicorn closes connections without a request at once.
        until = loop.time() + _FIRST_REQUEST_S
        while loop.time() < until and any(c.cycle is None for c in self._connections()):
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)
        self._service.engine.close()

    def _connections(self) -> list[Connection]:
        return cast("list[Connection]", list(self.server_state.connections))

    def _new_connection(self) -> Connection:
        return Connection(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals to end without raising them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second Ctrl-C does not wait for what is under way."""
        if self._service.is_draining:
            if sig == signal.SIGINT:
                self.should_exit = self.force_exit = True
            return
        self._service.drain()
        self._closes_at = time.monotonic() + self._service.settings.linger_s


def _begin_no_more(sock: socket.socket) -> None:
    """Let the kernel begin no more connections to a socket that listens, where it can be told."""
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    kept = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(kept))
    with contextlib.suppress(OSError):  # a kernel that has no filters
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def _accept_all(sock: socket.socket) -> list[socket.socket]:
    """Return the connections that the kernel has made and nobody has accepted."""
    accepted = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = sock.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has its port but does not listen yet, so nobody can connect.

    Raises:
        OSError: the port is taken, or the host is none of this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    os.set_inheritable(sock.fileno(), True)
    return sock


def serve(
    service: Service,
    sock: socket.socket,
    *,
    lifeline: int | None = None,
    when_open: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal to end comes, then drain."""
    Server(service, lifeline=lifeline, when_open=when_open).run(sockets=[sock])
