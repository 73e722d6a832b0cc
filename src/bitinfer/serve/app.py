"""The ASGI application: routes, bodies within bounds, errors as the protocol wants them."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from bitinfer._version import __version__
from bitinfer.documents import SCHEMA_VERSION, serving
from bitinfer.errors import BitInferError, ImageError, InputError
from bitinfer.files import one_line
from bitinfer.serve import openapi, page, pictures, protocol
from bitinfer.serve.access import AccessLog
from bitinfer.serve.engine import Call, ClientGone
from bitinfer.serve.handling import (
    Body,
    answer,
    check_takes_pictures,
    compute,
    encode,
    find,
    wanted_top_k,
)
from bitinfer.serve.metrics import CONTENT_TYPE
from bitinfer.serve.models import ServedModel
from bitinfer.serve.protocol import RequestError
from bitinfer.serve.service import Service

Handler = Callable[[Service, Request], Awaitable[Response]]

EXTENSIONS = ("binary_tensor_data", "classify")
_GONE = 499


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
    body = encode(serving.Failed(error=one_line(message, 500)))
    return Response(body, status, headers=headers, media_type=protocol.JSON)


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
        work = functools.partial(_classify_one, model, body, top_k)
        try:
            document, took = await compute(service, request, work)
        except ImageError as error:
            if not request.headers.get("content-type", "").startswith("multipart/"):
                raise
            raise ImageError(
                "the body is a form, wanted the bytes of a picture and nothing around them, as "
                "'curl --data-binary @FILE' sends them"
            ) from error
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
    return Response(encode(openapi.document(service.settings)), media_type=protocol.JSON)


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
