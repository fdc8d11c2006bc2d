"""Requests that are not answered with landmarks, and why."""

from __future__ import annotations

from http import HTTPStatus

from ray_kplm.errors import DataError
from ray_kplm.redaction import redact

RETRY_AFTER_S = 1
"""What a client is told to wait before it asks a busy server again, seconds."""


class Refusal(Exception):
    """A request, or an image of it, that is answered with an error.

    Attributes:
        status: HTTP status.
        code: The kind of error, a word for programs.
        message: What is wrong and the way out, one line.
    """

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, " ".join(redact(message).split())

    def entry(self) -> dict[str, str]:
        """Return the error as it stands in an answer."""
        return {"code": self.code, "message": self.message}

    @property
    def headers(self) -> dict[str, str]:
        """Further headers of the answer."""
        return {"Retry-After": str(RETRY_AFTER_S)} if self.status is HTTPStatus.SERVICE_UNAVAILABLE else {}


def bad_request(message: str) -> Refusal:
    """Return the refusal of a request that is not what HTTP or this interface says."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad_request", message)


def too_large(message: str) -> Refusal:
    """Return the refusal of a request or an image above a limit."""
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def unsupported(message: str) -> Refusal:
    """Return the refusal of a body that is no image by its type."""
    return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)


def busy(message: str) -> Refusal:
    """Return the refusal of a request while too many are waiting."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy", message)


def slow_request(seconds: float) -> Refusal:
    """Return the refusal of a request whose body does not arrive."""
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, "slow_request", f"the body did not arrive within {seconds:g} s")


def timed_out(seconds: float) -> Refusal:
    """Return the refusal of a request that was not answered in time."""
    message = f"not answered within {seconds:g} s: ask again later, or send fewer images at once"
    return Refusal(HTTPStatus.GATEWAY_TIMEOUT, "timeout", message)


def internal_error() -> Refusal:
    """Return the answer to a request on which the server failed; the log has the reason."""
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "the server failed on this request")


def unusable_image(error: DataError) -> Refusal:
    """Return the refusal of an image that cannot be decoded."""
    message = str(error)
    if message.startswith("too large"):
        return too_large(message)
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_image", message)
