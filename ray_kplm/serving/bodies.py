"""From the body of a request to the files in it. Sizes are checked while it arrives, not after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ray_kplm.serving.load import Held
from ray_kplm.serving.options import ServeOptions
from ray_kplm.serving.refusal import Refusal, bad_request, too_large, unsupported

MULTIPART = "multipart/form-data"
BINARY = "application/octet-stream"
_BOUNDARY_LENGTH = 70
"""Characters of a boundary at most (RFC 2046)."""
_NAME_LENGTH = 200
"""Characters of the name of a part that are given back at most."""


@dataclass
class File:
    """An image file of a request: its name, if it has one, and its content, or why it is refused unread."""

    name: str | None = None
    content: bytearray = field(default_factory=bytearray)
    refusal: Refusal | None = None


async def read_files(
    headers: dict[str, str], chunks: AsyncIterator[bytes], options: ServeOptions, held: Held
) -> tuple[list[File], bool]:
    """Read the body of a request.

    Args:
        headers: Of the request, names in lower case.
        chunks: The body.
        options: The limits.
        held: Told of every byte that is kept.

    Returns:
        The files, and whether they came as multipart.

    Raises:
        Refusal: The body is too large, of another type, or malformed.
    """
    kind, parameters = parse_options_header(headers.get("content-type", ""))
    media_type = kind.decode("latin-1").lower()
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise unsupported("a body with a content encoding: send image files as they are")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > options.max_request_bytes:
        raise _body_too_large(options)
    bounded = _bounded(chunks, options, held)
    if media_type == MULTIPART:
        return await _read_multipart(parameters.get(b"boundary", b""), bounded, options), True
    if not is_image_type(media_type):
        shown = f"content type {media_type[:60]!r}" if media_type else "no content type"
        raise unsupported(f"{shown}: send an image file as image/*, or several as {MULTIPART}")
    file = File()
    async for chunk in bounded:
        file.content += chunk
    return [file], False


def is_image_type(media_type: str) -> bool:
    """Return whether a content type may be that of an image file."""
    return media_type.startswith("image/") or media_type == BINARY


async def _bounded(chunks: AsyncIterator[bytes], options: ServeOptions, held: Held) -> AsyncIterator[bytes]:
    """Yield the chunks of a body. Raises Refusal once it is longer than allowed, or once too many bytes are held."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > options.max_request_bytes:
            raise _body_too_large(options)
        held.add_bytes(len(chunk))
        yield chunk


def _body_too_large(options: ServeOptions) -> Refusal:
    return too_large(f"a request of more than {options.max_request_bytes} bytes, which is the limit of this server")


async def _read_multipart(boundary: bytes, chunks: AsyncIterator[bytes], options: ServeOptions) -> list[File]:
    if not 0 < len(boundary) <= _BOUNDARY_LENGTH:
        raise bad_request(f"{MULTIPART} without a boundary of at most {_BOUNDARY_LENGTH} characters")
    parts = _Parts(options.max_request_images)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise bad_request(f"malformed {MULTIPART}: {str(error)[:120]}") from None
    if not parts.is_complete:
        raise bad_request(f"{MULTIPART} that ends before its last boundary")
    if not parts.files:
        raise bad_request(f"{MULTIPART} without a part: give at least one image file")
    return parts.files


class _Parts:
    """Collects the parts of a multipart body from the events of a parser."""

    def __init__(self, limit: int) -> None:
        """Take `limit` parts at most."""
        self.files: list[File] = []
        self.is_complete = False
        self._limit = limit
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = bytearray(), bytearray()

    def callbacks(self) -> Any:
        """Return the functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.files) == self._limit:
            raise too_large(f"more than {self._limit} images in a request: send the others in further requests")
        self.files.append(File())
        self._headers = {}

    def _end_header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        file = self.files[-1]
        _, names = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = names.get(b"filename", names.get(b"name", b""))
        file.name = name.decode("utf-8", "replace")[:_NAME_LENGTH] or None
        kind = parse_options_header(self._headers.get(b"content-type", b""))[0].decode("latin-1").lower()
        if kind and not is_image_type(kind):
            file.refusal = unsupported(f"a part of content type {kind[:60]!r}: send image files")

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self.files[-1].refusal is None:
            self.files[-1].content += data[start:end]

    def _end(self) -> None:
        self.is_complete = True
