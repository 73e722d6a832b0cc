"""What handlers have in common: bodies within bounds, work off the event loop, models by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.documents import Part
from bitinfer.files import one_line
from bitinfer.serve import protocol
from bitinfer.serve.engine import Call
from bitinfer.serve.models import ServedModel
from bitinfer.serve.protocol import RequestError
from bitinfer.serve.service import Service

_MAX_TOP_K = 1000
encode = msgspec.json.Encoder().encode


def answer(part: Part, status: int = 200) -> Response:
    """Return a document as a response."""
    return Response(encode(part), status, media_type=protocol.JSON)


class Body:
    """The body of a request as a context: its bytes count until it is left.

    Raises:
        RequestError: it is too large, compressed or too slow, or too many bytes are under way.
        ClientDisconnect: the client has gone.
    """

    def __init__(self, service: Service, request: Request) -> None:
        self._service, self._request = service, request
        self._taken = 0

    async def __aenter__(self) -> bytes:
        settings, headers = self._service.settings, self._request.headers
        coding = headers.get("content-encoding", "identity")
        if coding != "identity":
            raise RequestError(415, f"the body is {one_line(coding, 20)}-encoded, wanted plain")
        announced = headers.get("content-length")
        if announced is not None:
            self._take(int(announced))  # the HTTP parser has checked that it is a number
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                return await self._read(counted=announced is not None)
        except TimeoutError:
            self._give_back()
            raise RequestError(
                408, f"the body took more than {settings.body_timeout_s:g} seconds"
            ) from None
        except BaseException:
            self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    async def _read(self, *, counted: bool) -> bytes:
        parts = []
        async for part in self._request.stream():
            if not counted:
                self._take(len(part))
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, size: int) -> None:
        settings = self._service.settings
        if self._taken + size > settings.max_body_bytes:
            raise RequestError(413, f"a body has at most {settings.max_body_bytes} bytes")
        if self._service.buffered_bytes + size > settings.max_buffered_bytes:
            raise RequestError(503, "too many bytes are under way; try again later")
        self._taken += size
        self._service.buffered_bytes += size

    def _give_back(self) -> None:
        self._service.buffered_bytes -= self._taken
        self._taken = 0


async def compute(service: Service, request: Request, work: Callable[[Call], Any]) -> Any:
    """Return what a thread of the engine computes for a request."""
    service.metrics.set_gauge("in_flight", service.engine.admitted + 1)
    try:
        return await service.engine.run(
            work, timeout_s=service.settings.deadline_s, receive=request.receive
        )
    finally:
        service.metrics.set_gauge("in_flight", service.engine.admitted)


def find(service: Service, request: Request) -> ServedModel:
    """Return the model that the path names."""
    path = request.path_params
    return service.models.find(path["model"], path.get("version"))


def check_takes_pictures(model: ServedModel) -> None:
    """Raise RequestError if the model file does not say how a picture becomes the input."""
    if not model.takes_pictures:
        raise RequestError(400, f"{model.name} does not take pictures; send a tensor to /infer")


def wanted_top_k(request: Request) -> int:
    """Return how many classes a request asks for with ``?top_k=``."""
    text = request.query_params.get("top_k", "5")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= _MAX_TOP_K):
        raise RequestError(400, f"top_k is '{one_line(text, 20)}', wanted 1 to {_MAX_TOP_K}")
    return int(text)
