"""The description of the interface in OpenAPI 3.1, made from the structs of its documents."""

from __future__ import annotations

from typing import Any

import msgspec

from bitinfer._version import __version__
from bitinfer.documents import serving
from bitinfer.serve.settings import Settings

_REF = "#/components/schemas/{name}"

_ANSWERS = (
    serving.Failed,
    serving.ServerLive,
    serving.ServerReady,
    serving.ServerMetadata,
    serving.ModelReady,
    serving.ModelMetadata,
    serving.Inference,
    serving.Classification,
)

_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 256},
        "parameters": {"type": "object"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                    "datatype": {"enum": ["FP32", "UINT8"]},
                    "parameters": {
                        "type": "object",
                        "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
                    },
                    "data": {"type": "array", "description": "flat, or nested as the shape says"},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
            },
        },
    },
}

_TOP_K = {
    "name": "top_k",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5},
}


def document(settings: Settings) -> dict[str, Any]:
    """Return the description; it names what every path answers, errors included."""
    _, schemas = msgspec.json.schema_components(_ANSWERS, ref_template=_REF)
    paths: dict[str, Any] = {
        "/v2": _get("Describe the server", "ServerMetadata"),
        "/v2/health/live": _get("Tell whether the server answers", "ServerLive"),
        "/v2/health/ready": _get("Tell whether requests may be sent", "ServerReady", other=(503,)),
        "/metrics": {
            "get": {
                "summary": "Counters, as Prometheus reads them",
                "responses": {
                    "200": {"description": "all series", "content": {"text/plain": {"schema": {}}}}
                },
            }
        },
    }
    limit = f"at most {settings.max_body_bytes} bytes"
    for where, parameters in _PLACES:
        head = f"/v2/models/{where}"
        model = _get("Describe a model", "ModelMetadata", other=(404,))
        ready = _get("Tell whether a model takes requests", "ModelReady", other=(404, 503))
        bodies = {
            "application/json": {"schema": _REQUEST},
            "application/octet-stream": {
                "schema": {"description": "JSON, then the bytes of the tensors"}
            },
        }
        infer = _post("Run a network", "Inference", limit, bodies)
        infer["post"]["parameters"] = [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "how many bytes of the body are JSON; tensors follow",
                "schema": {"type": "integer", "minimum": 0},
            }
        ]
        infer["post"]["responses"]["200"]["content"]["application/octet-stream"] = {"schema": {}}
        picture: dict[str, Any] = {
            "image/*": {"schema": {}},
            "application/octet-stream": {"schema": {}},
        }
        classify = _post("Say what is in a picture", "Classification", limit, picture)
        classify["post"]["parameters"] = [_TOP_K]
        for path, item in (
            (head, model),
            (f"{head}/ready", ready),
            (f"{head}/infer", infer),
            (f"{head}/classify", classify),
        ):
            paths[path] = {"parameters": parameters, **item}
    return {
        "openapi": "3.1.0",
        "info": {"title": "bitinfer", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _name(name: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "minLength": 1},
    }


_MODEL = _name("model", "as the server was told to call it")
_VERSION = _name("version", "a number; without it, the highest is meant")
_PLACES = (
    ("{model}", [_MODEL]),
    ("{model}/versions/{version}", [_MODEL, _VERSION]),
)

_MEANINGS = {
    400: "the request is wrong",
    404: "there is no such model",
    408: "the body was too slow",
    413: "the body is too large",
    415: "the body is compressed",
    422: "the network's output for this input is not finite",
    503: "not now; Retry-After says when",
}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=name)}}}


def _failures(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {
        str(status): {"description": _MEANINGS[status], "content": _content("Failed")}
        for status in statuses
    }


def _get(summary: str, name: str, *, other: tuple[int, ...] = ()) -> dict[str, Any]:
    responses = {"200": {"description": "the answer", "content": _content(name)}}
    failures = _failures(other)
    if "503" in failures:
        failures["503"]["content"] = _content(name)
    return {"get": {"summary": summary, "responses": {**responses, **failures}}}


def _post(summary: str, name: str, limit: str, bodies: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "description": limit, "content": bodies},
            "responses": {
                "200": {"description": "the answer", "content": _content(name)},
                **_failures((400, 404, 408, 413, 415, 422, 503)),
            },
        }
    }
