"""Models, engine and metrics together: what handlers work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitinfer.errors import MissingExtraError
from bitinfer.serve.engine import Engine
from bitinfer.serve.metrics import Metrics
from bitinfer.serve.models import Models
from bitinfer.serve.settings import Settings


class Service:
    """Everything that one process of a server has.  Models have passed their self-test.

    It may be made before a fork: threads start with the first request.
    """

    def __init__(
        self,
        models: Models,
        settings: Settings | None = None,
        *,
        workers: int = 1,
        modules: Mapping[str, bytes] | None = None,
    ) -> None:
        self.models = models
        self.modules = dict(modules or {})
        """WebAssembly modules by name of a model, which the page runs in the browser."""
        self.settings = settings or Settings()
        self.metrics = Metrics([(model.name, model.version) for model in models], workers)
        self.engine = Engine(self.settings.pool_threads, self.settings.queue)
        self.is_draining = False
        """From the signal to end on: requests are answered, but no more are wanted."""
        self.buffered_bytes = 0
        """Of the bodies of all requests that are under way."""
        self.metrics.set_gauge("ready", 1)

    def drain(self) -> None:
        """Say that no more requests are wanted."""
        self.is_draining = True
        self.metrics.set_gauge("ready", 0)


def require(package: str) -> Any:
    """Return an imported package of the extra ``serve``.

    Raises:
        MissingExtraError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(
            f"serving needs {package}, which is not installed", "serve"
        ) from None
