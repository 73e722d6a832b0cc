"""The page at ``/``: its files, and the three requests that only it makes.

Everything is plain HTML, CSS and JavaScript in this folder; nothing is loaded from elsewhere, which
the Content-Security-Policy holds the browser to.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from bitinfer.serve import handling
from bitinfer.serve.page import views
from bitinfer.serve.protocol import RequestError
from bitinfer.serve.service import Service

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _file(name: str, media_type: str) -> Callable[[Service, Request], Awaitable[Response]]:
    content = resources.files(__name__).joinpath(name).read_bytes()

    async def send(service: Service, request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_headers(service))

    return send


def _headers(service: Service) -> dict[str, str]:
    """Return the headers; the browser may compile WebAssembly only where there is some."""
    if not service.modules:
        return _HEADERS
    policy = _HEADERS["content-security-policy"]
    allowed = policy.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
    return {**_HEADERS, "content-security-policy": allowed}


async def _module(service: Service, request: Request) -> Response:
    model = handling.find(service, request)
    if model.name not in service.modules:
        raise RequestError(404, f"there is no WebAssembly module of {model.name}")
    content = service.modules[model.name]
    return Response(content, media_type="application/wasm", headers=_headers(service))


async def _explain(service: Service, request: Request) -> Response:
    model = handling.find(service, request)
    top_k = handling.wanted_top_k(request)
    handling.check_takes_pictures(model)
    async with handling.Body(service, request) as body:
        started = time.perf_counter()
        has_module = model.name in service.modules
        work = functools.partial(views.explain, model, body, top_k, has_module=has_module)
        document = await handling.compute(service, request, work)
    took = time.perf_counter() - started
    service.metrics.count_inference((model.name, model.version), 1, took)
    return handling.answer(document)


async def _layer(service: Service, request: Request) -> Response:
    model = handling.find(service, request)
    handling.check_takes_pictures(model)
    text = request.path_params["index"]
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise RequestError(404, "a layer is a number from 0")
    async with handling.Body(service, request) as body:
        work = functools.partial(views.layer, model, body, int(text))
        document = await handling.compute(service, request, work)
    return handling.answer(document)


ROUTES = (
    ("/", "GET", "page", _file("index.html", "text/html")),
    ("/page/page.js", "GET", "page", _file("page.js", "text/javascript")),
    ("/page/page.css", "GET", "page", _file("page.css", "text/css")),
    ("/page/models/{model}/module.wasm", "GET", "page", _module),
    ("/page/models/{model}/explain", "POST", "page", _explain),
    ("/page/models/{model}/layers/{index}", "POST", "page", _layer),
)
