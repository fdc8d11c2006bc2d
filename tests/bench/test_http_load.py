"""The client of `kplm bench serve`, against a server of the standard library."""

from __future__ import annotations

import json
import threading
from collections import Counter
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ray_kplm.bench.http_load import ask_all, image_request, images_request


class Echo(BaseHTTPRequestHandler):
    """Answers with what it got; `b"refuse"` with 422, and closes the connection on `b"close"`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"close":
            self.close_connection = True
            return
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message: EmailMessage = BytesParser(policy=HTTP).parsebytes(kind + body)
        parts = [part.get_payload(decode=True).decode("latin-1") for part in message.iter_parts()] or [body.decode()]
        reply = json.dumps({"parts": parts}).encode()
        self.send_response(422 if body == b"refuse" else 200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_every_request_is_sent_once_and_has_its_answer(port):
    requests = [image_request(b"first"), image_request(b"refuse"), images_request([b"a", b"b\r\nc"])]
    replies, seconds = ask_all(port, requests, 30, 4)
    assert sorted(reply.number for reply in replies) == list(range(30))
    expected = {0: (200, ["first"]), 1: (422, ["refuse"]), 2: (200, ["a", "b\r\nc"])}
    assert all((reply.status, reply.content["parts"]) == expected[reply.number % 3] for reply in replies)
    assert 0 < max(reply.seconds for reply in replies) <= seconds


def test_a_connection_that_ends_is_counted_and_replaced(port):
    replies, _ = ask_all(port, [image_request(b"close"), image_request(b"next")], 10, 1)
    assert Counter(reply.status for reply in replies) == {0: 5, 200: 5}
