"""From image files to answers: decoding and the network, off the event loop that reads requests."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.given_images import rgb_of
from ray_kplm.errors import DataError
from ray_kplm.landmark_detector import Landmarks, Prepared
from ray_kplm.points.layout import Layout
from ray_kplm.redaction import redact
from ray_kplm.serving.options import ServeOptions
from ray_kplm.serving.refusal import Refusal, internal_error, unusable_image

_DECODERS = 2
"""Threads that decode; a decoded picture of the greatest size takes hundreds of megabytes, so that few do so at once."""
_log = logging.getLogger("ray_kplm.serving")

Batched = Callable[[list[Prepared]], Awaitable[list[Landmarks | None]]]
"""The landmarks of several images at once; None where the network failed."""
Batch = Callable[[Batched], Callable[[Prepared], Awaitable[Landmarks | None]]]
"""Makes of a function of several images one of a single image, which waits for others: `ray.serve.batch`."""


class Detector(Protocol):
    """What is served: a `LandmarkDetector`."""

    @property
    def layout(self) -> Layout:
        """The points that it predicts."""
        ...

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Return an RGB image (H, W, 3) as `predict_prepared` takes it."""
        ...

    def predict_prepared(self, images: Sequence[Prepared], *, min_probability: float) -> list[Landmarks]:
        """Return the landmarks of images."""
        ...


@dataclass(frozen=True)
class Found:
    """The landmarks of an image, with its size in pixels, upright."""

    width: int
    height: int
    landmarks: Landmarks

    def entry(self) -> dict[str, Any]:
        """Return the landmarks as they stand in an answer; null for what is no number."""
        found = self.landmarks
        return {
            "width": self.width,
            "height": self.height,
            "xy": [_numbers(point, 3) for point in found.xy],
            "confidence": _numbers(found.confidence, 4),
            "probability": _numbers(found.probability, 4),
            "found": found.found.tolist(),
            "facing": None if found.facing is None else round(found.facing, 4),
        }


class Engine:
    """A detector that answers many requests at once: it decodes in threads, and gives the network batches."""

    def __init__(self, detector: Detector, options: ServeOptions, batch: Batch) -> None:
        """Serve a detector; `batch` collects the images of requests."""
        self.layout = detector.layout
        self._detector, self._options = detector, options
        self._decoders = ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1), "decode")
        self._network = ThreadPoolExecutor(1, "network")
        self._predict = batch(self._predict_batch)

    async def answer(self, content: bytes | bytearray) -> Found | Refusal:
        """Return the landmarks of an image file, or why there are none. It raises nothing that concerns the image."""
        try:
            width, height, prepared = await self._in(self._decoders, partial(self._decode, content))
        except DataError as error:
            return unusable_image(error)
        except Exception:
            _log.error("decoding failed", exc_info=True)
            return internal_error()
        found = await self._predict(prepared)
        return internal_error() if found is None else Found(width, height, found)

    def _decode(self, content: bytes | bytearray) -> tuple[int, int, Prepared]:
        rgb = rgb_of(content, self._options.limits)
        return rgb.shape[1], rgb.shape[0], self._detector.prepare(rgb)

    async def _predict_batch(self, images: list[Prepared]) -> list[Landmarks | None]:
        found: list[Landmarks | None] = await self._in(self._network, partial(self._each, images))
        return found

    def _each(self, images: list[Prepared]) -> list[Landmarks | None]:
        """Return the landmarks of a batch. If the network fails on it, the images are tried one by one."""
        try:
            return list(self._detector.predict_prepared(images, min_probability=self._options.min_probability))
        except Exception as error:
            _log.error("the network failed on %d images: %s", len(images), redact(f"{type(error).__name__}: {error}"))
            return [None] if len(images) == 1 else [one for image in images for one in self._each([image])]

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call)

    def close(self) -> None:
        """End the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._network.shutdown(wait=False, cancel_futures=True)


def _numbers(values: NDArray[np.float32], digits: int) -> list[float | None]:
    return [
        round(value, digits) if value == value and abs(value) != float("inf") else None for value in values.tolist()
    ]
