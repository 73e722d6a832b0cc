"""An inference server: the Open Inference Protocol V2 over HTTP, and a page to look at.

    from bitinfer.serve import Application, Service, Settings, load_models

    app = Application(Service(load_models(["lenet5=lenet5.bin"])))      # any ASGI server runs it

protocol    requests and answers of the protocol, as pure functions
models      what is served, by name and version, and the self-test
engine      inference off the event loop: a bounded pool, deadlines, cancellation
pictures    from the bytes of a picture to predictions, with times
service     models, engine and metrics together
handling    what handlers have in common
app         the ASGI application: routes and handlers
metrics     counters in memory that all workers share, as Prometheus reads them
openapi     the description of the interface
server      uvicorn with limits on connections, and its orderly end
workers     several processes that share a port
page        what a browser shows

Needs the extra ``serve``; this module and models, metrics, engine and protocol do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitinfer.serve.app import Application
    from bitinfer.serve.models import load_models
    from bitinfer.serve.service import Service
    from bitinfer.serve.settings import Settings

__all__ = ["Application", "Service", "Settings", "load_models"]

_HOMES = {
    "Application": "app",
    "Service": "service",
    "Settings": "settings",
    "load_models": "models",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'bitinfer.serve' has no attribute {name!r}")
    from importlib import import_module

    if name == "Application":
        from bitinfer.serve.service import require

        require("starlette")
    return getattr(import_module(f"bitinfer.serve.{_HOMES[name]}"), name)
