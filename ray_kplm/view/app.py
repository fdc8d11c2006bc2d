"""The page over HTTP: its files, images, and what its workspace answers in JSON."""

from __future__ import annotations

import html
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ray_kplm.errors import ConfigError, KplmError
from ray_kplm.redaction import redact
from ray_kplm.view.edits import EditedPoint
from ray_kplm.view.guard import Guard
from ray_kplm.view.label_file import ConflictError
from ray_kplm.view.label_points import check_points
from ray_kplm.view.pictures import picture
from ray_kplm.view.workspace import Wanted, Workspace

MOST_BYTES = 1 << 20
"""Of the body of a request."""
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_DECODERS = 2
"""Threads that decode pictures; a large one takes hundreds of megabytes meanwhile."""
_log = logging.getLogger("ray_kplm.view")
Call = Callable[[Request], Awaitable[Response]]


def make_app(workspace: Workspace, token: str | None = None) -> Guard:
    """Return the ASGI application of a workspace; `token` is what its page sends with changes, by default a random one."""
    token = token or secrets.token_urlsafe(32)
    pages = _Pages(workspace, token)
    ways: list[tuple[str, str, Call]] = [
        ("GET", "/", pages.page),
        ("GET", "/static/{name}", pages.static),
        ("GET", "/image/{index:int}", pages.image),
        ("GET", "/api/state", pages.state),
        ("GET", "/api/images", pages.images),
        ("GET", "/api/points", pages.points),
        ("GET", "/api/job", pages.job),
        ("POST", "/api/label", pages.label),
        ("POST", "/api/unlabel", pages.unlabel),
        ("POST", "/api/names", pages.names),
        ("POST", "/api/edit", pages.edit),
        ("POST", "/api/adapt", pages.adapt),
    ]
    routes = [Route(path, _told(call), methods=[method]) for method, path, call in ways]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _no_route}), token)


class _Pages:
    def __init__(self, workspace: Workspace, token: str) -> None:
        self._workspace, self._token = workspace, token
        self._files = {
            path.name: path.read_bytes()
            for path in (resources.files("ray_kplm.view") / "static").iterdir()
            if "." + path.name.rpartition(".")[2] in _TYPES
        }
        self._decoders = ThreadPoolExecutor(_DECODERS, "picture")

    async def page(self, request: Request) -> Response:
        """Answer with the page, which knows the token."""
        content = self._files["page.html"].replace(b"{{ token }}", html.escape(self._token).encode())
        return _file(content, _TYPES[".html"])

    async def static(self, request: Request) -> Response:
        """Answer with a file of the page."""
        name = request.path_params["name"]
        if name not in self._files or name == "page.html":
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return _file(self._files[name], _TYPES["." + name.rpartition(".")[2]])

    async def image(self, request: Request) -> Response:
        """Answer with a picture, small unless the query says `large`."""
        import asyncio

        index = request.path_params["index"]
        self._workspace.check_images([index])
        work = partial(picture, self._workspace.gallery, index, small="large" not in request.query_params)
        content, kind = await asyncio.get_running_loop().run_in_executor(self._decoders, work)
        return Response(content, headers={"Cache-Control": "private, max-age=600"}, media_type=kind)

    async def state(self, request: Request) -> Response:
        """Answer with what the page shows beside images."""
        return _json(await run_in_threadpool(self._workspace.state))

    async def images(self, request: Request) -> Response:
        """Answer with a list of images."""
        given = request.query_params
        labelled = {"yes": True, "no": False}.get(given.get("labelled", ""))
        wanted = Wanted(
            given.get("set", ""), given.get("order", "given"), _number(given.get("point"), int, "point"),
            _number(given.get("below"), float, "below"), given.get("split", ""), labelled,
            max(0, _number(given.get("offset"), int, "offset") or 0),
            max(0, _number(given.get("count", "60"), int, "count") or 0),
        )  # fmt: skip
        return _json(await run_in_threadpool(self._workspace.listing, wanted))

    async def points(self, request: Request) -> Response:
        """Answer with the points of images, by their numbers."""
        given = request.query_params
        indices = [_number(text, int, "images") or 0 for text in given.get("images", "").split(",") if text]
        return _json(await self._workspace.points(given.get("set", ""), indices))

    async def job(self, request: Request) -> Response:
        """Answer with how far the fit of own points is."""
        return _json(self._workspace.job.state())

    async def label(self, request: Request) -> Response:
        """Save the label of an image."""
        body = await _body(request, {"image": int, "points": list, "names": list, "revision": (str, type(None))})
        points = check_points(body["points"])
        names = _texts(body["names"], "names")
        return _json(
            await run_in_threadpool(self._workspace.save_label, body["image"], points, names, body["revision"])
        )

    async def unlabel(self, request: Request) -> Response:
        """Remove the label of an image."""
        body = await _body(request, {"image": int, "revision": (str, type(None))})
        await run_in_threadpool(self._workspace.remove_label, body["image"], body["revision"])
        return _json({})

    async def names(self, request: Request) -> Response:
        """Change which points are labelled."""
        body = await _body(request, {"names": list, "known": list})
        names, known = _texts(body["names"], "names"), _texts(body["known"], "known")
        await run_in_threadpool(self._workspace.labels.set_names, names, known)
        return _json({})

    async def edit(self, request: Request) -> Response:
        """Name, drop and merge landmarks, and join them by edges."""
        import asyncio

        body = await _body(request, {"points": list, "edges": list})
        points = [_edited(one) for one in body["points"]]
        edges = [_edge(one) for one in body["edges"]]
        future = self._workspace.worker.submit(0, lambda: self._workspace.edit(points, edges))
        return _json(await asyncio.wrap_future(future))

    async def adapt(self, request: Request) -> Response:
        """Begin to fit points on the labels."""
        body = await _body(request, {"name": str})
        return _json(await run_in_threadpool(self._workspace.adapt, body["name"]))


async def _body(request: Request, kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the object in a body. Raises ConfigError if it does not have exactly these keys, of these types."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {MOST_BYTES} bytes")
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigError("the body is no JSON") from None
    if not isinstance(plain, dict) or plain.keys() != kinds.keys():
        raise ConfigError(f"the body is an object with {', '.join(kinds)}")
    for key, kind in kinds.items():
        if not isinstance(plain[key], kind) or isinstance(plain[key], bool):
            raise ConfigError(f"{key}: {str(plain[key])[:40]!r} is of the wrong type")
    return plain


def _number(text: str | None, kind: type[Any], key: str) -> Any:
    try:
        return None if text in (None, "") else kind(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"{key} = {str(text)[:40]}: is no number") from None


def _texts(values: list[Any], key: str) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{key}: give a list of names")
    return values


def _edited(plain: Any) -> EditedPoint:
    is_one = isinstance(plain, dict) and plain.keys() == {"landmarks", "name", "partner"}
    if not is_one or not isinstance(plain["landmarks"], list) or not isinstance(plain["name"], str):
        raise ConfigError("points: give landmarks, name and partner of each")
    landmarks, partner = plain["landmarks"], plain["partner"]
    if not landmarks or not all(type(k) is int for k in landmarks) or not isinstance(partner, (str, type(None))):
        raise ConfigError("points: landmarks are numbers, and a partner is a name or null")
    return EditedPoint(tuple(landmarks), plain["name"].strip(), partner and partner.strip())


def _edge(plain: Any) -> tuple[str, str]:
    if not (isinstance(plain, list) and len(plain) == 2 and all(isinstance(name, str) for name in plain)):
        raise ConfigError("edges: give pairs of names")
    return plain[0].strip(), plain[1].strip()


def _told(call: Call) -> Call:
    """Return the call with errors as answers of one line, and unexpected ones logged without credentials."""

    async def told(request: Request) -> Response:
        try:
            return await call(request)
        except HTTPException:
            raise
        except ConflictError as error:
            return _json({"error": str(error)}, HTTPStatus.CONFLICT)
        except KplmError as error:
            return _json({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        except OSError as error:
            reason = " ".join((error.strerror or str(error)).split())
            return _json({"error": redact(f"{error.filename or 'storage'}: {reason}")}, HTTPStatus.INSUFFICIENT_STORAGE)
        except Exception:
            _log.exception("a request failed")
            return _json({"error": "the server failed on this; its log says why"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    return told


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


def _file(content: bytes, kind: str) -> Response:
    return Response(content, headers={"Cache-Control": "no-store"}, media_type=f"{kind}; charset=utf-8")


def _json(content: Any, status: int = HTTPStatus.OK) -> Response:
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, {"Cache-Control": "no-store"}, "application/json")
