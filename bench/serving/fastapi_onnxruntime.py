"""What a FastAPI route with ONNX Runtime looks like where nobody has tuned it; see compare.py."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["TWIN"], options)
app = FastAPI()


class Tensor(BaseModel):
    """A tensor of the protocol, flat."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    """A request of the protocol."""

    inputs: list[Tensor]


@app.post("/v2/models/lenet5/infer")
def infer(request: Request) -> dict[str, Any]:
    """Answer in starlette's thread pool, as FastAPI does with routes that are not async."""
    tensor = request.inputs[0]
    x = np.array(tensor.data, np.float32).reshape(1, 1, 28, 28)
    (y,) = session.run(None, {"x": x})
    output = {"name": "y", "shape": y.shape, "datatype": "FP32", "data": y.ravel().tolist()}
    return {"model_name": "lenet5", "outputs": [output]}
