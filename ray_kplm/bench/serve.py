"""How many requests a server answers, and how fast, beside the detector alone; and what broken images do to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.bench.http_load import Reply, ask_all, image_request, images_request
from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
from ray_kplm.progress import ProgressCallback
from ray_kplm.runtime.serving import serve_here
from ray_kplm.serving.options import ServeOptions

_PICTURES = 64
"""Different images; requests repeat them."""
_TOLERANCE = 0.1
"""Greatest difference from the landmarks of the detector alone, pixels: batches of other sizes round differently."""
_BROKEN_EVERY = 4
"""One image of so many is broken, in the requests that have some."""
_WARM_UP = 128
_SEGMENTS = 5
"""Server and detector alone are timed in turn, so that other work on the machine slows both."""
_GROUP_CLIENTS = 2


@dataclass(frozen=True)
class Load:
    """What is asked.

    Attributes:
        requests: Number of requests with one image each.
        clients: Connections that ask at the same time.
        side: Of the images, pixels.
    """

    requests: int = 10_000
    clients: int = 64
    side: int = 256


def bench(detector: str, options: ServeOptions, load: Load, port: int, progress: ProgressCallback) -> dict[str, Any]:
    """Measure a server of a detector on this machine.

    Returns:
        `requests_per_s` and `latency_ms` of single images by `clients` connections, `one_client_ms` by one connection;
        `bare_images_per_s`, those of `LandmarkDetector.predict` on the same files in batches of `max_batch`, timed in between;
        `ratio`; `multipart_images_per_s` and `multipart_ratio` of requests with `max_batch` images; `errors`, answers that were
        no landmarks or other ones; `broken`, what requests for broken images were answered, and the errors of those between.
    """
    pictures = _pictures(load.side)
    bare = LandmarkDetector.load(detector)
    expected = bare.predict(pictures)
    progress(0.05, "the detector alone")
    single = [_seconds(lambda: bare.predict(pictures[0])) for _ in range(20)]
    requests = [image_request(one) for one in pictures]
    bare_s, served_s = _Speed(), 0.0
    replies: list[Reply] = []
    with serve_here(detector, options, "127.0.0.1", port):
        progress(0.15, "the server, warming up")
        ask_all(port, requests, _WARM_UP, load.clients)
        for segment in range(_SEGMENTS):
            progress(0.2 + 0.5 * segment / _SEGMENTS, f"{load.requests} requests by {load.clients} clients")
            bare_s.add(bare, pictures, options.max_batch)
            count = load.requests * (segment + 1) // _SEGMENTS - load.requests * segment // _SEGMENTS
            more, seconds = ask_all(port, requests, count, load.clients)
            replies, served_s = replies + more, served_s + seconds
        bare_s.add(bare, pictures, options.max_batch)
        progress(0.7, "one client")
        alone, _ = ask_all(port, requests, 20, 1)
        progress(0.75, f"requests with {options.max_batch} images")
        several = max(4, load.requests // (4 * options.max_batch))
        body = images_request([pictures[i % _PICTURES] for i in range(options.max_batch)])
        grouped, grouped_seconds = ask_all(port, [body], several, _GROUP_CLIENTS)
        bare_s.add(bare, pictures, options.max_batch)
        progress(0.85, "broken images among the others")
        mixed = _with_broken(requests, pictures)
        answers, _ = ask_all(port, mixed, load.requests // 5, load.clients)
    rate, bare_speed = len(replies) / served_s, bare_s.images / bare_s.seconds
    group_rate = several * options.max_batch / grouped_seconds
    broken = [reply for reply in answers if reply.number % _BROKEN_EVERY == 0]
    between = [reply for reply in answers if reply.number % _BROKEN_EVERY]
    return {
        "requests": len(replies),
        "clients": load.clients,
        "max_batch": options.max_batch,
        "requests_per_s": rate,
        "latency_ms": _percentiles(replies),
        "one_client_ms": _percentiles(alone),
        "bare_images_per_s": bare_speed,
        "bare_one_image_ms": 1e3 * float(np.median(single)),
        "ratio": rate / bare_speed,
        "multipart_images_per_s": group_rate,
        "multipart_ratio": group_rate / bare_speed,
        "errors": sum(not _is_right(reply, expected[reply.number % _PICTURES]) for reply in replies)
        + sum(reply.status != 200 for reply in [*alone, *grouped]),
        "broken": {
            "requests": len(broken),
            "answered_4xx": sum(400 <= reply.status < 500 for reply in broken),
            "errors_of_others": sum(not _is_right(reply, expected[reply.number % _PICTURES]) for reply in between),
        },
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures as text."""
    latency, broken = figures["latency_ms"], figures["broken"]
    return [
        f"{figures['requests_per_s']:.0f} requests/s by {figures['clients']} clients, in batches of at most "
        f"{figures['max_batch']}; latency p50 {latency['p50']:.1f}, p95 {latency['p95']:.1f}, p99 {latency['p99']:.1f} ms",
        f"{figures['one_client_ms']['p50']:.1f} ms by one client (the detector alone: {figures['bare_one_image_ms']:.1f} ms)",
        f"{figures['bare_images_per_s']:.0f} images/s by the detector alone: ratio {figures['ratio']:.2f}; "
        f"{figures['multipart_ratio']:.2f} in requests with {figures['max_batch']} images",
        f"{figures['errors']} errors in {figures['requests']} requests",
        f"{broken['answered_4xx']} of {broken['requests']} broken images refused (4xx), "
        f"{broken['errors_of_others']} errors of those between",
    ]


def is_passed(figures: dict[str, Any]) -> bool:
    """Return whether nothing went wrong: no errors, and every broken image was refused."""
    broken = figures["broken"]
    refused = broken["answered_4xx"] == broken["requests"]
    return refused and not figures["errors"] and not broken["errors_of_others"]


def _pictures(side: int) -> list[bytes]:
    """Return seeded pictures as JPEG files."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(_PICTURES):
        few = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        rgb: NDArray[Any] = cv2.resize(few, (side, side), interpolation=cv2.INTER_CUBIC)
        pictures.append(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return pictures


def _with_broken(requests: Sequence[bytes], pictures: Sequence[bytes]) -> list[bytes]:
    """Return the requests, with every `_BROKEN_EVERY`th image cut, damaged, or none at all."""
    mixed = list(requests)
    for number in range(0, len(mixed), _BROKEN_EVERY):
        whole = pictures[number]
        kinds = (whole[: len(whole) // 2], b"no image", b"", whole[:200] + bytes(200))
        mixed[number] = image_request(kinds[number // _BROKEN_EVERY % len(kinds)])
    return mixed


class _Speed:
    """Images and seconds of the detector alone."""

    def __init__(self) -> None:
        self.images, self.seconds = 0, 0.0

    def add(self, detector: LandmarkDetector, pictures: list[bytes], batch: int, least_s: float = 2.0) -> None:
        """Time calls with `batch` files for so many seconds."""
        files = [pictures[i % _PICTURES] for i in range(batch)]
        until = self.seconds + least_s
        while self.seconds < until:
            self.seconds += _seconds(lambda: detector.predict(files))
            self.images += batch


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _percentiles(replies: Sequence[Reply]) -> dict[str, float]:
    values = np.percentile([1e3 * reply.seconds for reply in replies], [50, 95, 99])
    return dict(zip(("p50", "p95", "p99"), values.tolist(), strict=True))


def _is_right(reply: Reply, expected: Landmarks) -> bool:
    if reply.status != 200:
        return False
    xy = np.array(reply.content["images"][0]["xy"], float)
    return bool(np.allclose(xy, expected.xy, atol=_TOLERANCE, equal_nan=True))
