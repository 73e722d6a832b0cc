"""bitinfer on a Ray cluster: a Serve deployment, and batches.

    from ray import serve
    import bitinfer.ray

    serve.run(bitinfer.ray.deployment(["/shared/lenet5.bin"], num_replicas=2), route_prefix="/")

    dataset = ray.data.read_images(..., mode="L")  # or any that has pictures' bytes or paths
    dataset.map_batches(bitinfer.ray.Classifier, fn_constructor_args=("/shared/lenet5.bin",),
                        concurrency=2)

Every node opens the model by its path.  Ray lets whoever reaches its ports run code
(CVE-2023-48022): use it in a private network, with its token.  Needs the extra ``ray``.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bitinfer import batch, session, vision
from bitinfer.errors import BitInferError, MissingExtraError
from bitinfer.files import one_line
from bitinfer.serve.settings import Settings

__all__ = ["Classifier", "deployment"]


def require() -> Any:
    """Return the package ray.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("this needs Ray, which is not installed", "ray") from None
    return ray


# --- serving -------------------------------------------------------------------------------------


def deployment(
    models: Sequence[str],
    *,
    backend: str = "auto",
    settings: Settings | None = None,
    **options: Any,
) -> Any:
    """Return a Ray Serve application that answers as ``bitinfer serve`` does.

    ``models`` are those of :func:`bitinfer.serve.load_models`; ``options`` are those of
    ``ray.serve.deployment``, such as ``num_replicas``.  A replica is ready after the self-test.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    require()
    from ray import serve

    bounds = settings or Settings(access_log=False)
    defaults = {"max_ongoing_requests": bounds.pool_threads + bounds.queue}
    made = serve.deployment(**{**defaults, **options})(Replica)
    return made.bind(tuple(models), backend, bounds)


class Replica:
    """One process of a deployment."""

    def __init__(self, models: Sequence[str], backend: str, settings: Settings) -> None:
        from bitinfer.serve import Application, Service, load_models

        self._app = Application(Service(load_models(models, backend), settings))

    async def __call__(self, request: Any) -> Any:
        """Answer a request, which is starlette's."""
        from starlette.responses import Response

        status, headers, parts = 500, [], []

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            else:
                parts.append(message.get("body", b""))

        await self._app(dict(request.scope), request.receive, send)
        response = Response(b"".join(parts), status)
        response.raw_headers = list(headers)
        return response


# --- batches -------------------------------------------------------------------------------------


class Classifier:
    """Classifies the pictures of a Ray Data batch, for ``map_batches``.

    The batch has a column ``bytes`` (pictures' files), ``image`` (decoded, uint8) or ``path``; to
    its columns it adds ``index``, ``label`` and ``probability`` of the best class, and ``error``,
    which is empty unless the picture cannot be read: then index is -1 and probability 0.
    """

    def __init__(self, model: str, backend: str = "auto") -> None:
        self._session = session.load(model, backend)

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the columns that are added.

        Raises:
            BitInferError: it has none of the columns.
        """
        name = next((n for n in ("bytes", "image", "path") if n in columns), None)
        if name is None:
            raise BitInferError(f"columns {', '.join(columns)}: none is bytes, image or path")
        rows = [self._classify(value) for value in columns[name]]
        index, label, probability, error = zip(*rows, strict=True) if rows else ((),) * 4
        return {
            **columns,
            "index": np.array(index, np.int32),
            "label": np.array(label, object),
            "probability": np.array(probability, np.float32),
            "error": np.array(error, object),
        }

    def _classify(self, value: Any) -> tuple[int, str, float, str]:
        try:
            if isinstance(value, np.ndarray):
                value = _encoded(value)
            (best,) = self._session.classify(value, 1)
        except BitInferError as error:
            return -1, "", 0.0, one_line(error, None)
        return best.index, best.label, best.probability, ""


def _encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return decoded pixels as a file that loses nothing, so that one way leads to the network."""
    file = io.BytesIO()
    vision.from_pixels(pixels).save(file, "PPM")
    return file.getvalue()


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start one here, until the block ends.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = require()
    own = not os.environ.get("RAY_ADDRESS")
    here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if own else {}
    ray.init(log_to_driver=False, logging_level="ERROR", **here)
    try:
        yield
    finally:
        ray.shutdown()


def clustered(model: str, replicas: int, top_k: int, backend: str = "auto") -> batch.Compute:
    """Return what computes the parts of :func:`bitinfer.batch.run` on a cluster.

    A replica that dies is started again, and its part is computed anew.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = require()
    from ray.util import ActorPool

    worker = ray.remote(max_restarts=-1, max_task_retries=3)(PartClassifier)

    def compute(parts: Iterable[batch.Part]) -> Iterator[list[batch.Row]]:
        pool = ActorPool([worker.remote(model, top_k, backend) for _ in range(replicas)])
        yield from pool.map(lambda actor, part: actor.classify.remote(list(part)), parts)

    return compute


class PartClassifier:
    """What a replica does for a batch."""

    def __init__(self, model: str, top_k: int, backend: str) -> None:
        self._session = session.load(model, backend)
        self._top_k = top_k

    def classify(self, part: Sequence[batch.Input]) -> list[batch.Row]:
        """Return the rows of a part."""
        return [batch.classify_row(self._session, one, self._top_k) for one in part]
