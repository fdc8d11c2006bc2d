"""Who may ask the page's server: pages of its own address alone, as any page in the same browser can send it requests.

Other sites reach a server of this machine by a name that leads here (DNS rebinding), so the Host must be one of this machine.
They send requests without reading the answers (CSRF), so changes need the page's token and its Origin. What browsers say of
where a request comes from (Sec-Fetch-Site) keeps pictures from being shown by other sites.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
TOKEN_HEADER = "X-Kplm-Token"
_READS = ("GET", "HEAD")
_OWN = ("same-origin", "none")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy of every answer: nothing from elsewhere, nothing inline."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that lets through to another one what its own page asks, and adds `HEADERS` to the answers."""

    def __init__(self, app: App, token: str) -> None:
        """Guard an application; `token` is what its page knows."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":  # websockets there are none
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        reason = self._refusal(scope)
        if reason is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            answer = JSONResponse({"error": reason}, HTTPStatus.FORBIDDEN)
            await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(raw=scope["headers"])
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_loopback(hosts[0]):
            return "this server answers under the name of this machine alone: 127.0.0.1 or localhost"
        is_link = scope["path"] == "/" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site", "none") not in _OWN and not is_link:
            return "this server answers its own page alone"
        origins = headers.getlist("origin")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return "this server answers its own page alone"
        if scope["method"] in _READS:
            return None
        given = headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return "the server was started again since this page was loaded: load the page again"
        return None


def is_loopback(host: str) -> bool:
    """Return whether a Host header names this machine. Any port is right: it may be that of a tunnel."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name, port = host, ""
    return name.lower() in LOOPBACK and (not port or port.isdecimal())


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return sending
