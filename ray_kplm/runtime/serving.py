"""Ray Serve's part of serving: replicas that hold the detector, batches of what they are asked, and the start on one machine.

`ray_kplm.runtime.serving:app` is what `serve deploy` imports (`jobs/serve.yaml`); `serve_here` is `kplm serve`.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NoReturn

import cv2
import torch
from ray import serve
from ray.serve import Application

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ClusterError, ConfigError
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.redaction import RedactingFormatter
from ray_kplm.runtime.session import session
from ray_kplm.serving.app import make_app
from ray_kplm.serving.engine import Batch, Batched, Engine
from ray_kplm.serving.options import ServeOptions

APPLICATION = "landmarks"
DETECTOR, POINTS = "detector", "points"
"""Arguments of `app` beside those of `ServeOptions`: a finished run or an exported detector, and which points of it."""
ENVIRONMENT = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # the application never blocks its event loop
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads of the network that wait leave the core to those that decode and answer
}
"""Environment of Serve's processes on one machine: fewer threads between a request and its answer (Ray 2.60)."""
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_CONCURRENT_BATCHES = 1
"""While the network works on a batch, the next one fills: a batch of a few images costs nearly as much as one of many."""
_SPARE_REQUESTS = 100
"""Requests that a replica takes beyond those whose images wait, so that it can refuse them, and answer /healthz."""


class LandmarkServer:
    """A replica: the detector, and the application around it."""

    def __init__(self, detector: str, options: dict[str, Any], points: str | None = None) -> None:
        """Load a detector with these points; `options` are those of `ServeOptions`."""
        _log_without_credentials()
        self._options = ServeOptions(**options)
        cv2.setNumThreads(1)
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(self._options.threads or max(1, cpus // self._options.replicas))
        loaded = LandmarkDetector.load(detector, points=points, limits=self._options.limits)
        self._engine = Engine(loaded, self._options, batched(self._options))

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application; Serve calls this once."""
        return make_app(self._engine, self._options)


def batched(options: ServeOptions) -> Batch:
    """Return what makes of a function of several images one of a single image, by `serve.batch`."""

    def batch(several: Batched) -> Callable[[Any], Any]:
        async def predict(images: list[Any]) -> list[Any]:
            return await several(images)

        wait_s = options.batch_wait_ms / 1000
        decorate = serve.batch(
            max_batch_size=options.max_batch, batch_wait_timeout_s=wait_s, max_concurrent_batches=_CONCURRENT_BATCHES
        )
        decorated: Callable[[Any], Any] = decorate(predict)
        return decorated

    return batch


def app(arguments: dict[str, Any]) -> Application:
    """Return the application that serves a detector, for `serve deploy` and `serve run`.

    Args:
        arguments: `detector`, a path or URI that every node reaches; `points`, as of `LandmarkDetector.load`; and any of
            `ServeOptions`.

    Raises:
        ConfigError: An argument is missing, unknown or out of its range.
    """
    values = dict(arguments)
    place, points = values.pop(DETECTOR, None), values.pop(POINTS, None)
    if not isinstance(place, str) or not place:
        raise ConfigError(
            f"{DETECTOR} = {place!r}: name a finished run or an exported detector, for example detector: runs/mine"
        )
    if points is not None and not isinstance(points, str):
        raise ConfigError(f"{POINTS} = {points!r}: name a set of points of the run, for example points: edited")
    options = ServeOptions.of(values)
    deployment = serve.deployment(serve.ingress()(LandmarkServer)).options(
        name="LandmarkServer",
        num_replicas=options.replicas,
        max_ongoing_requests=options.max_queue + _SPARE_REQUESTS,
        max_constructor_retry_count=2,
        graceful_shutdown_timeout_s=options.timeout_s,
        ray_actor_options={"num_cpus": 1},
        logging_config=_QUIET,
    )
    return deployment.bind(place, asdict(options), points)


@contextmanager
def serve_here(detector: str, options: ServeOptions, host: str, port: int, points: str | None = None) -> Iterator[str]:
    """Serve a detector on this machine with a Ray of its own, which ends with the block. Yields the URL.

    Args:
        detector: A finished run, or a file or folder of an exported detector.
        options: Of the server.
        host: Address to listen at.
        port: Port to listen at.
        points: Which points of the detector: see `LandmarkDetector.load`.

    Raises:
        KplmError: The detector cannot be loaded.
        ClusterError: Ray or Ray Serve does not start.
    """
    if os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            "RAY_ADDRESS is set: on a cluster use `serve deploy jobs/serve.yaml`; unset it to serve on this machine"
        )
    LandmarkDetector.load(detector, device="cpu", points=points)  # an error of one line, which a replica would not give
    place = detector if "://" in detector else os.path.abspath(detector)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with session(ComputeConfig(workers=options.replicas)):
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            serve.start("HeadOnly", {"host": host, "port": port}, logging_config=_QUIET)
            serve.run(app({DETECTOR: place, POINTS: points, **asdict(options)}), name=APPLICATION, route_prefix="/")
        except (RuntimeError, TimeoutError, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ClusterError(f"Ray Serve did not start: {lines[-1]}") from error
        finally:
            signal.signal(signal.SIGTERM, handler)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


def wait_for_ever() -> NoReturn:
    """Wait until a signal raises KeyboardInterrupt."""
    while True:
        time.sleep(3600)


def _log_without_credentials() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("ray_kplm.serving")
    log.handlers, log.propagate = [handler], False
