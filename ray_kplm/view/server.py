"""The page's server: it listens on this machine alone, in a thread of its own, so that Ctrl-C reaches the command."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ray_kplm.errors import ConfigError
from ray_kplm.redaction import RedactingFormatter
from ray_kplm.view.guard import Guard

HOST = "127.0.0.1"
_END_S = 2
"""Open connections end within this time, seconds."""
_START_S = 60


@contextmanager
def serve(app: Guard, port: int | None) -> Iterator[str]:
    """Serve an application while the block runs, and give its address.

    Args:
        app: The application.
        port: To listen at; None: a free one.

    Raises:
        ConfigError: Nobody can listen there.
    """
    listening = _listen(port)
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("ray_kplm.view")
    log.handlers, log.propagate = [handler], False
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=_END_S,
        server_header=False, ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="serve", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(_END_S + 1)
        listening.close()


def _listen(port: int | None) -> socket.socket:
    """Return a socket that listens; who asks before the server runs is answered when it does."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port or 0))
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = f"{error.strerror or error}".lower()
        raise ConfigError(
            f"--port {port}: cannot listen there ({reason}); leave it out, and a free one is taken"
        ) from None
    return listening
