"""The description of the interface, OpenAPI 3.1: what `/openapi.json` answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

PATHS = {
    "/predict": ("POST", "predict"),
    "/healthz": ("GET", "health"),
    "/openapi.json": ("GET", "openapi"),
    "/": ("GET", "info"),
}
"""Path -> method and operation."""

_REFUSALS = {
    400: "the request is malformed",
    408: "the body did not arrive in time",
    413: "the request, or its image, is above a limit of the server",
    415: "the body is no image by its content type",
    422: "the image cannot be used",
    500: "the server failed on this request",
    503: "too many images are waiting; Retry-After says when to ask again",
    504: "the request was not answered in time",
}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_ERROR = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
    "additionalProperties": False,
}
_FOUND = {
    "type": "object",
    "required": ["width", "height", "xy", "confidence", "probability", "found", "facing"],
    "properties": {
        "name": {"type": "string", "description": "file name of the part of a multipart request"},
        "width": {"type": "integer", "description": "pixels of the upright image"},
        "height": {"type": "integer"},
        "xy": {
            "type": "array",
            "description": "(x, y) of each landmark, pixels of the upright image, pixel centres at integers",
            "items": {"type": "array", "items": _NUMBER_OR_NULL, "minItems": 2, "maxItems": 2},
        },
        "confidence": {"type": "array", "description": "heights of the peaks", "items": {"type": "number"}},
        "probability": {
            "type": "array",
            "description": "of being found, 0 to 1; null of a detector that was made without",
            "items": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        },
        "found": {"type": "array", "items": {"type": "boolean"}},
        "facing": {**_NUMBER_OR_NULL, "description": "-1 to 1 for categories seen from the side, else null"},
    },
    "additionalProperties": False,
}
_REFUSED = {
    "type": "object",
    "required": ["error"],
    "properties": {"name": {"type": "string"}, "error": {"$ref": "#/components/schemas/Error"}},
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {
    "Error": _ERROR,
    "Found": _FOUND,
    "Refused": _REFUSED,
    "Answer": {
        "type": "object",
        "required": ["names", "images"],
        "properties": {
            "names": {
                "type": "array",
                "description": "of the landmarks, or of the points made of them, in order",
                "items": {"type": "string"},
            },
            "images": {
                "type": "array",
                "description": "one entry an image, in the order of the request",
                "items": {"anyOf": [{"$ref": "#/components/schemas/Found"}, {"$ref": "#/components/schemas/Refused"}]},
            },
        },
        "additionalProperties": False,
    },
    "Info": {
        "type": "object",
        "required": ["name", "version", "landmarks", "names", "partners", "skeleton", "paths", "options"],
        "properties": {
            "name": {"const": "ray_kplm"},
            "version": {"type": "string"},
            "landmarks": {"type": "integer", "description": "number of the points that are found"},
            "names": {"type": "array", "items": {"type": "string"}},
            "partners": {
                "type": "array",
                "description": "number of each point's partner in the mirror image, from 0; its own number if it has none",
                "items": {"type": "integer"},
            },
            "skeleton": {
                "type": "array",
                "description": "pairs of points, numbers from 0, that a line joins",
                "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            },
            "paths": {"type": "object", "additionalProperties": {"type": "string"}},
            "options": {"type": "object", "description": "limits and batching"},
        },
        "additionalProperties": False,
    },
}


_PLAIN = {"info": {"schema": {"$ref": "#/components/schemas/Info"}}}
"""Operation -> what it answers with."""


def openapi(version: str) -> dict[str, Any]:
    """Return the description as an OpenAPI 3.1 document; it refers to nothing outside of itself."""
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    form = {"type": "object", "additionalProperties": {"type": "array", "items": binary["schema"]}}
    body = {"image/*": binary, "application/octet-stream": binary, "multipart/form-data": {"schema": form}}
    answer = _json(
        "Answer", "the landmarks; an image of a multipart request that cannot be used has an error in its place"
    )
    refused = {str(status): _json("Refused", text) for status, text in _REFUSALS.items()}
    for status in (413, 415, 422, 500):  # of a multipart request without any image that can be used, the entries
        schemas = [{"$ref": "#/components/schemas/Refused"}, {"$ref": "#/components/schemas/Answer"}]
        refused[str(status)]["content"]["application/json"]["schema"] = {"anyOf": schemas}
    refused["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    texts = {
        "health": "Whether the server lives",
        "openapi": "This document",
        "info": "What is served: names, partners and skeleton of the points, and limits",
    }
    plain = {path: (method, name) for path, (method, name) in PATHS.items() if name != "predict"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ray_kplm: landmarks of images", "version": version},
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Find the landmarks of one image, or of several as multipart/form-data",
                    "requestBody": {"required": True, "content": body},
                    "responses": {"200": answer, **refused},
                }
            },
            **{
                path: {
                    method.lower(): {
                        "operationId": name,
                        "summary": texts[name],
                        "responses": {
                            "200": {
                                "description": HTTPStatus.OK.phrase,
                                "content": {"application/json": _PLAIN.get(name, {})},
                            }
                        },
                    }
                }
                for path, (method, name) in plain.items()
            },
        },
        "components": {"schemas": SCHEMAS},
    }


def _json(schema: str, description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
