"""Many requests at once to a server on this machine, by a client that takes as little of the machine as it can."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """The answer to a request.

    Attributes:
        number: Of the request.
        status: HTTP status; 0 if the connection failed.
        seconds: Between the request and its answer.
        content: The JSON.
    """

    number: int
    status: int
    seconds: float
    content: dict[str, Any]


def image_request(content: bytes) -> bytes:
    """Return a request for the landmarks of an image file, as it goes over the wire."""
    return _post("image/jpeg", content)


def images_request(contents: Sequence[bytes]) -> bytes:
    """Return a multipart request for the landmarks of several image files."""
    parts = [
        b'--kplm-bench\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n\r\n%b\r\n'
        % (number, content)
        for number, content in enumerate(contents)
    ]
    return _post("multipart/form-data; boundary=kplm-bench", b"".join(parts) + b"--kplm-bench--\r\n")


def _post(kind: str, body: bytes) -> bytes:
    return (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def ask_all(port: int, requests: Sequence[bytes], count: int, clients: int) -> tuple[list[Reply], float]:
    """Send `count` requests, in turn those given, over so many connections at once.

    Returns:
        The answers, and the seconds that all took.
    """
    return asyncio.run(_ask_all(port, requests, count, clients))


async def _ask_all(port: int, requests: Sequence[bytes], count: int, clients: int) -> tuple[list[Reply], float]:
    numbers, replies = iter(range(count)), []

    async def client() -> None:
        connection = None
        for number in numbers:
            began = time.perf_counter()
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                status, content = await _ask(*connection, requests[number % len(requests)])
            except (OSError, asyncio.IncompleteReadError):
                status, content, connection = 0, {}, None
            replies.append(Reply(number, status, time.perf_counter() - began, content))
        if connection is not None:
            connection[1].close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return replies, time.perf_counter() - began


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, dict[str, Any]]:
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return int(head.split(b" ", 2)[1]), json.loads(await reader.readexactly(length))
