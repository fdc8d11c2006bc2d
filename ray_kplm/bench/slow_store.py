"""A folder served as an object store with latency, on loopback: it counts what is requested of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyarrow import fs

from ray_kplm.storage import Folder

LATENCY_S = 0.03
"""Of each request: what an object store of the same region takes."""
_BUCKET = "bench"


class SlowStore:
    """The part of S3 that readers use: the size of a file, and ranges of its bytes.

    Attributes:
        folder: what readers see, for any process of this machine.
        requests: number of requests so far.
        part_requests: those of the parts of tables.
        bytes: bytes sent so far.
    """

    def __init__(self, port: int) -> None:
        endpoint = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http", "region": "us-east-1"}
        self.folder = Folder(fs.S3FileSystem(anonymous=True, **endpoint), _BUCKET)
        self.requests, self.part_requests, self.bytes = 0, 0, 0
        self._lock = threading.Lock()

    def count(self, path: str, sent: int) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.part_requests += path.endswith(".parquet")
            self.bytes += sent


@contextmanager
def slow_store(root: str) -> Iterator[SlowStore]:
    """Serve a local folder, read-only, for the block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.root, server.store = Path(root), SlowStore(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    root: Path
    store: SlowStore


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        """Answer with the size of a file, or that there is none."""
        self._answer(with_content=False)

    def do_GET(self) -> None:
        """Answer with a range of the bytes of a file."""
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        time.sleep(LATENCY_S)
        path = self.server.root / unquote(urlsplit(self.path).path).removeprefix(f"/{_BUCKET}").lstrip("/")
        if not path.is_file():
            self._send(404, b"", 0, None)
            return
        size = os.path.getsize(path)
        first, last = 0, size - 1
        if wanted := self.headers.get("Range"):
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        content = b""
        if with_content:
            with open(path, "rb") as file:
                file.seek(first)
                content = file.read(last - first + 1)
        self._send(
            206 if wanted else 200, content, last - first + 1, f"bytes {first}-{last}/{size}" if wanted else None
        )

    def _send(self, status: int, content: bytes, length: int, content_range: str | None) -> None:
        self.server.store.count(urlsplit(self.path).path, len(content))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"0"')
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
