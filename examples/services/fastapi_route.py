"""A FastAPI application with a route of its own, and with bitinfer's server mounted beside it.

    pip install fastapi uvicorn '.[serve]'
    MODEL=examples/lenet5.bin uvicorn --app-dir examples/services fastapi_route:app
    curl --data-binary @examples/digit_7.png http://127.0.0.1:8000/digit

The session is loaded once.  Inference runs in starlette's thread pool, so that the event loop stays
free; a call does not hold the GIL while it computes.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, HTTPException, Request
from starlette.concurrency import run_in_threadpool

import bitinfer
from bitinfer.serve import Application, Service, load_models

MODEL = os.environ.get("MODEL", "examples/lenet5.bin")
MAX_BYTES = 1 << 20

session = bitinfer.load(MODEL)
session.warmup(pixels=True)
app = FastAPI()
app.mount("/bitinfer", Application(Service(load_models([f"model={MODEL}"]))))


@app.post("/digit")
async def digit(request: Request) -> dict[str, object]:
    """Say which digit a picture shows."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"at most {MAX_BYTES} bytes")
    try:
        (best,) = await run_in_threadpool(session.classify, bytes(body), 1)
    except bitinfer.ImageError as error:
        raise HTTPException(400, str(error)) from error
    return {"digit": best.label, "probability": best.probability}
