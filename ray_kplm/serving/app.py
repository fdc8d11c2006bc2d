"""The ASGI application: POST /predict, and what tells about the server."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ray_kplm.redaction import redact
from ray_kplm.serving.bodies import File, read_files
from ray_kplm.serving.engine import Engine, Found
from ray_kplm.serving.load import Load
from ray_kplm.serving.openapi import PATHS, openapi
from ray_kplm.serving.options import ServeOptions
from ray_kplm.serving.refusal import Refusal, bad_request, internal_error, slow_request, timed_out

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_log = logging.getLogger("ray_kplm.serving")


def make_app(engine: Engine, options: ServeOptions) -> Starlette:
    """Return the application that answers with the landmarks of an engine."""
    server = _Server(engine, options)
    calls = {"predict": server.predict, "health": server.health, "info": server.info, "openapi": server.describe}
    routes = [Route(path, _guarded(calls[name]), methods=[method]) for path, (method, name) in PATHS.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route})


class _Server:
    def __init__(self, engine: Engine, options: ServeOptions) -> None:
        self._engine, self._options = engine, options
        self._load = Load(options)
        self._layout = engine.layout
        self._openapi = openapi(_version())

    async def predict(self, request: Request) -> Response:
        """Answer with the landmarks of the images in a request."""
        seconds, begun = self._options.timeout_s, asyncio.get_running_loop().time()
        with self._load.request() as held:
            try:
                async with asyncio.timeout_at(begun + seconds):
                    headers = dict(request.headers.items())
                    files, is_multipart = await read_files(headers, request.stream(), self._options, held)
            except TimeoutError:
                raise slow_request(seconds) from None
            except ClientDisconnect:
                raise bad_request("the connection ended before the body") from None
            held.add_images(len(files))
            try:
                async with asyncio.timeout_at(begun + seconds):
                    answers = await asyncio.gather(*map(self._answer, files))
            except TimeoutError:
                raise timed_out(seconds) from None
        first = answers[0]
        if not is_multipart and isinstance(first, Refusal):
            raise first
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        status = max(answer.status for answer in refused) if len(refused) == len(answers) else HTTPStatus.OK
        entries = [_entry(file, answer) for file, answer in zip(files, answers, strict=True)]
        return _json({"names": self._layout.names, "images": entries}, status)

    async def _answer(self, file: File) -> Found | Refusal:
        return file.refusal or await self._engine.answer(file.content)

    async def health(self, request: Request) -> Response:
        """Answer that this process lives, and how many images wait."""
        return _json({"status": "ok", "waiting": self._load.images})

    async def info(self, request: Request) -> Response:
        """Answer with what is served and what a request may be."""
        layout = self._layout
        known = {"name": "ray_kplm", "version": _version(), "landmarks": len(layout), "names": layout.names}
        known |= {"partners": layout.partners, "skeleton": layout.skeleton}
        paths = {path: method for path, (method, _) in PATHS.items()}
        return _json({**known, "paths": paths, "options": asdict(self._options)})

    async def describe(self, request: Request) -> Response:
        """Answer with the description of this interface."""
        return _json(self._openapi)


def _entry(file: File, answer: Found | Refusal) -> dict[str, Any]:
    named = {} if file.name is None else {"name": file.name}
    return named | (answer.entry() if isinstance(answer, Found) else {"error": answer.entry()})


def _guarded(call: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return the call with refusals as answers, and unexpected errors logged without credentials."""

    async def guarded(request: Request) -> Response:
        try:
            return await call(request)
        except Refusal as refusal:
            return _refused(refusal)
        except Exception:
            _log.error("%s", redact(traceback.format_exc()))
            return _refused(internal_error())

    return guarded


def _no_such_route(request: Request, error: Exception) -> Response:
    status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else 500)
    ways = ", ".join(f"{method} {path}" for path, (method, _) in PATHS.items())
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _refused(Refusal(status, status.phrase.lower().replace(" ", "_"), f"this server answers {ways}"), headers)


def _refused(refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": refusal.entry()}, refusal.status, {**refusal.headers, **(headers or {})})


def _json(content: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, {**_HEADERS, **(headers or {})}, "application/json")


def _version() -> str:
    try:
        return importlib.metadata.version("ray-kplm")
    except importlib.metadata.PackageNotFoundError:  # in a Ray job, whose code is not installed
        return "unknown"
