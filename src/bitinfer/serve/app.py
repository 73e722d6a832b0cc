"""The ASGI application: routes, bodies within bounds, errors as the protocol wants them."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from bitinfer._version import __version__
from bitinfer.documents import SCHEMA_VERSION, Part, serving
from bitinfer.errors import BitInferError, ImageError, InputError
from bitinfer.files import one_line
from bitinfer.serve import openapi, pictures, protocol
from bitinfer.serve.access import AccessLog
from bitinfer.serve.engine import Call, ClientGone
from bitinfer.serve.metrics import CONTENT_TYPE
from bitinfer.serve.models import ServedModel
from bitinfer.serve.protocol import RequestError
from bitinfer.serve.service import Service

Handler = Callable[[Service, Request], Awaitable[Response]]

EXTENSIONS = ("binary_tensor_data", "classify")
_MAX_TOP_K = 1000
_GONE = 499
_encode = msgspec.json.Encoder().encode


class Application:
    """The ASGI application of a :class:`Service`; it can be mounted in another one."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._access = AccessLog() if service.settings.access_log else None
        routes = [
            _route(service, path, method, endpoint, handler)
            for path, method, endpoint, handler in _ROUTES
        ]
        if service.settings.page:
            from bitinfer.serve import page

            routes += [_route(service, *route) for route in page.ROUTES]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        scope["app"] = self  # the router then raises what it does not find
        started = time.perf_counter()
        status, size = _GONE, 0
        draining = self.service.is_draining

        async def observe(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                if draining:
                    message["headers"].append((b"connection", b"close"))
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            try:
                await self._router(scope, receive, observe)
            except Exception as error:
                if status != _GONE:
                    raise
                response = _failure(error)
                if response is not None:
                    await response(scope, receive, observe)
                if response is not None and response.status_code == 500:
                    raise  # the server logs it
        finally:
            took = time.perf_counter() - started
            self.service.metrics.count_request(scope.get("endpoint_kind", "other"), status, took)
            if self._access is not None:
                client = scope["client"][0] if scope.get("client") else "-"
                self._access.add(
                    client, scope["method"], scope["path"], status=status, size=size, seconds=took
                )


class _Endpoint:
    """A handler as an ASGI application, which starlette calls without a wrapper of its own."""

    def __init__(self, service: Service, kind: str, handler: Handler) -> None:
        self._service, self._kind, self._handler = service, kind, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint_kind"] = self._kind
        response = await self._handler(self._service, Request(scope, receive))
        await response(scope, receive, send)


def _route(service: Service, path: str, method: str, kind: str, handler: Handler) -> Route:
    return Route(path, _Endpoint(service, kind, handler), methods=[method])


def answer(part: Part, status: int = 200) -> Response:
    """Return a document as a response."""
    return Response(_encode(part), status, media_type=protocol.JSON)


def _failure(error: Exception) -> Response | None:
    """Return the response to what a handler has raised; none if nobody waits for it."""
    if isinstance(error, ClientGone | ClientDisconnect):
        return None
    headers: dict[str, str] = {}
    if isinstance(error, RequestError):
        status, message = error.status, str(error)
    elif isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
        headers.update(error.headers or {})
    elif isinstance(error, MemoryError):
        status, message = 503, "not enough memory for this request; try again later"
    elif isinstance(error, ImageError):
        status, message = 400, str(error)
    elif isinstance(error, InputError):
        status, message = 422, str(error)
    elif isinstance(error, BitInferError):
        status, message = 400, str(error)
    else:
        status, message = 500, "internal error; the server's log says more"
    if status == 503:
        headers["retry-after"] = "1"
    if status in (408, 413):
        headers["connection"] = "close"  # the rest of the body would be read for nothing
    body = _encode(serving.Failed(error=one_line(message, 500)))
    return Response(body, status, headers=headers, media_type=protocol.JSON)


# --- bodies --------------------------------------------------------------------------------------


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


# --- inference -----------------------------------------------------------------------------------


async def _infer(service: Service, request: Request) -> Response:
    model = find(service, request)
    length = request.headers.get(protocol.HEADER_LENGTH)
    async with Body(service, request) as body:
        work = functools.partial(infer, model, body, length, service.settings.max_batch)
        text, header_length, samples, took = await compute(service, request, work)
    service.metrics.count_inference((model.name, model.version), samples, took)
    if header_length is None:
        return Response(text, media_type=protocol.JSON)
    headers = {protocol.HEADER_LENGTH: str(header_length)}
    return Response(text, media_type=protocol.BINARY, headers=headers)


def infer(
    model: ServedModel, body: bytes, header_length: str | None, max_batch: int, call: Call
) -> tuple[bytes, int | None, int, float]:
    """Return the body of the answer to a request, how much of it is JSON, samples and seconds.

    Raises:
        RequestError: the request is wrong.
        ClientGone: nobody waits any more.
    """
    started = time.perf_counter()
    session = model.session
    request, binary = protocol.parse(body, header_length)
    x = protocol.read_input(
        request, binary, session.inputs[0], datatypes=model.datatypes, max_batch=max_batch
    )
    protocol.check_outputs(request, [info.name for info in session.outputs])
    result = session.run(x, check=call.check)
    outputs = result if isinstance(result, dict) else {session.outputs[0].name: result}
    text, length = protocol.answer(
        request, outputs, model_name=model.name, model_version=model.version
    )
    samples = 1 if x.shape == session.inputs[0].shape else len(x)
    return text, length, samples, time.perf_counter() - started


async def _classify(service: Service, request: Request) -> Response:
    model = find(service, request)
    top_k = wanted_top_k(request)
    check_takes_pictures(model)
    async with Body(service, request) as body:
        document, took = await compute(
            service, request, functools.partial(_classify_one, model, body, top_k)
        )
    service.metrics.count_inference((model.name, model.version), 1, took)
    return answer(document)


def _classify_one(
    model: ServedModel, body: bytes, top_k: int, call: Call
) -> tuple[serving.Classification, float]:
    started = time.perf_counter()
    predictions, times = pictures.classify(model.session, body, top_k, check=call.check)
    document = serving.Classification(
        schema_version=SCHEMA_VERSION,
        model_name=model.name,
        model_version=model.version,
        backend=model.session.backend,
        predictions=predictions,
        ms=times,
    )
    return document, time.perf_counter() - started


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


# --- what there is -------------------------------------------------------------------------------


async def _live(service: Service, request: Request) -> Response:
    return answer(serving.ServerLive(live=True))


async def _ready(service: Service, request: Request) -> Response:
    ready = not service.is_draining
    return answer(serving.ServerReady(ready=ready), 200 if ready else 503)


async def _server(service: Service, request: Request) -> Response:
    return answer(
        serving.ServerMetadata(
            name="bitinfer",
            version=__version__,
            extensions=EXTENSIONS,
            models=service.models.names,
        )
    )


async def _model(service: Service, request: Request) -> Response:
    model = find(service, request)
    return answer(model.metadata(service.models.versions(model.name)))


async def _model_ready(service: Service, request: Request) -> Response:
    model, ready = find(service, request), not service.is_draining
    return answer(serving.ModelReady(name=model.name, ready=ready), 200 if ready else 503)


async def _metrics(service: Service, request: Request) -> Response:
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _openapi(service: Service, request: Request) -> Response:
    return Response(_encode(openapi.document(service.settings)), media_type=protocol.JSON)


def _of_models(path: str, method: str, kind: str, handler: Handler) -> tuple[Any, ...]:
    versioned = path.replace("{model}", "{model}/versions/{version}")
    return (path, method, kind, handler), (versioned, method, kind, handler)


_ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    *_of_models("/v2/models/{model}/infer", "POST", "infer", _infer),
    *_of_models("/v2/models/{model}/classify", "POST", "classify", _classify),
    ("/v2/health/live", "GET", "health", _live),
    ("/v2/health/ready", "GET", "health", _ready),
    *_of_models("/v2/models/{model}/ready", "GET", "health", _model_ready),
    *_of_models("/v2/models/{model}", "GET", "metadata", _model),
    ("/v2", "GET", "metadata", _server),
    ("/metrics", "GET", "metrics", _metrics),
    ("/openapi.json", "GET", "metadata", _openapi),
)
"""Path, method, kind of endpoint in metrics, and handler; the most frequent first."""
