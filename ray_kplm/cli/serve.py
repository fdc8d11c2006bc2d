"""The command that answers requests: serve."""

from __future__ import annotations

import argparse
import socket
import sys
import typing
from typing import TYPE_CHECKING, Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, command
from ray_kplm.cli.parser import Number, add_points
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.extras import check_installed
from ray_kplm.ranges import range_of, shown_number

if TYPE_CHECKING:
    from ray_kplm.serving.options import ServeOptions

_PACKAGES = ("ray", "starlette", "uvicorn", "python_multipart", "grpc_reflection")
"""Modules that the extra `serve` brings."""
_FILES = (".onnx", ".pt2")
"""Extensions of exported detectors that are one file."""
_BATCHING = {
    "max_batch": "images that the network sees at once at most",
    "batch_wait_ms": "an image waits so long for others, milliseconds",
    "threads": "threads of the network in a replica; 0: the CPUs of the machine, shared by the replicas",
    "replicas": "processes that hold the detector",
}
_LIMITS = {
    "max_request_bytes": "refuse requests with a larger body",
    "max_request_images": "refuse requests with more images",
    "max_pixels": "refuse images of more pixels, which take 7 bytes each",
    "max_queue": "images that may wait in a replica; requests beyond are told to ask again",
    "timeout_s": "answer within so many seconds, or with an error",
    "min_probability": "least probability of a landmark that is found",
}


def add(commands: Any) -> None:
    """Declare the command."""
    from ray_kplm.serving.options import PORTS

    text = (
        "Answer HTTP requests with the landmarks of the images in them. POST /predict takes an image file, or several as "
        "multipart/form-data, and answers in JSON; /healthz, / and /openapi.json tell about the server. It listens on this "
        "machine alone unless --host says otherwise, and asks nobody for a password. Ctrl-C ends it."
    )
    epilog = (
        "Examples:\n"
        "  kplm serve runs/mine\n"
        "  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict\n"
        "  curl -F a=@a.jpg -F b=@b.png http://127.0.0.1:8000/predict\n"
        "  kplm serve runs/mine --points nose5   # those of `kplm adapt --name nose5`\n"
        "  kplm serve runs/mine --host 0.0.0.0 --port 9000 --replicas 2"
    )
    parser = command(commands, "serve", _serve, text, epilog)
    add_detector(parser)
    add_points(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all of this machine")
    parser.add_argument("--port", type=Number(int, PORTS), default=8000, help="port to listen at")
    add_options(parser, _BATCHING | _LIMITS)


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names what is served."""
    parser.add_argument(
        "detector", metavar="RUN", help="the run directory, or the folder or file of an exported detector"
    )


def add_options(parser: argparse.ArgumentParser, texts: dict[str, str] = _BATCHING) -> None:
    """Add options of a server; by default those of batching."""
    from ray_kplm.serving.options import ServeOptions

    hints = typing.get_type_hints(ServeOptions, include_extras=True)
    for name, text in texts.items():
        default = getattr(ServeOptions(), name)
        allowed = range_of(hints[name])
        assert allowed is not None
        parser.add_argument(
            f"--{name.removesuffix('_s').replace('_', '-')}",
            dest=name,
            type=Number(type(default), allowed),
            default=default,
            metavar="N",
            help=f"{text}; {allowed}" if name == "max_pixels" else text,
        )


def chosen(options: argparse.Namespace) -> ServeOptions:
    """Return the options of a server that were given; the others have their defaults."""
    from ray_kplm.serving.options import ServeOptions

    names = (_BATCHING | _LIMITS).keys() & vars(options).keys()
    return ServeOptions(**{name: getattr(options, name) for name in names})


def check(detector: str, host: str, port: int, points: str | None = None) -> None:
    """Raise an error of one line if a detector cannot be served: packages, the detector, its points, the port."""
    from ray_kplm.storage import Folder

    check_installed(*_PACKAGES)
    if not detector.endswith(_FILES):
        checks.points(checks.detector(detector), points)
    elif not Folder.at(detector).exists():
        raise DataError(f"{detector}: no such file")
    check_port(host, port)


def check_port(host: str, port: int) -> None:
    """Raise ConfigError if nobody can listen at an address and a port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            attempt.bind(address)
    except OSError as error:
        reason = f"{error.strerror or error}".lower()
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({reason}); try --port {port % 65_535 + 1}"
        ) from None


def is_loopback(host: str) -> bool:
    """Return whether an address is that of this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _serve(options: argparse.Namespace) -> Result:
    check(options.detector, options.host, options.port, options.points)
    server = chosen(options)
    with options.console.loading():
        from ray_kplm.runtime.serving import serve_here, wait_for_ever
    if not is_loopback(options.host):
        print(
            f"kplm: {options.host} is reached from other machines, and nobody is asked for a password: put a proxy with TLS "
            "and authentication before it",
            file=sys.stderr,
        )
    with serve_here(options.detector, server, options.host, options.port, options.points) as url:
        options.console.inform(
            f"kplm: {options.detector} is served at {url} (POST {url}/predict, at most "
            f"{shown_number(server.max_request_bytes)} bytes); Ctrl-C ends it"
        )
        wait_for_ever()
    return Result("")
