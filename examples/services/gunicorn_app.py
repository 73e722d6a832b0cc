r"""A WSGI application for gunicorn: workers share what is loaded before the fork.

    pip install gunicorn
    MODEL=examples/lenet5.bin gunicorn --preload --workers 4 --threads 2 \
        --chdir examples/services gunicorn_app:app
    curl --data-binary @examples/digit_7.png http://127.0.0.1:8000/

With --preload the model is loaded and its weights laid out once; the workers share these pages
until somebody writes to them, which nobody does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import bitinfer

MAX_BYTES = 1 << 20

session = bitinfer.load(os.environ.get("MODEL", "examples/lenet5.bin"))
session.warmup(pixels=True)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a picture with its classes."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BYTES:
        status, answer = "413 Content Too Large", {"error": f"at most {MAX_BYTES} bytes"}
    else:
        try:
            found = session.classify(environ["wsgi.input"].read(length), 3)
            status = "200 OK"
            answer = {"labels": [p.label for p in found], "worker": os.getpid()}
        except bitinfer.ImageError as error:
            status, answer = "400 Bad Request", {"error": str(error)}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
