"""A server in this process: the application with a small detector, without Ray."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from ray_kplm.detectors.stored import export
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.serving.app import make_app
from ray_kplm.serving.engine import Engine
from ray_kplm.serving.options import ServeOptions
from ray_kplm.storage import Folder

K = 4
Ask = Callable[[httpx2.AsyncClient], Awaitable[Any]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory, untrained_run) -> Path:
    """The folder of an exported detector whose network is untrained."""
    folder = tmp_path_factory.mktemp("served")
    export(untrained_run(folder, K), Folder.at(folder / "detector"))
    return folder / "detector"


@pytest.fixture(scope="session")
def detector(exported) -> LandmarkDetector:
    return LandmarkDetector.load(exported, device="cpu")


def picture(seed: int = 0, width: int = 90, height: int = 60, form: str = "JPEG") -> bytes:
    few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()


class Spy:
    """A detector that notes the sizes of the batches that it is given."""

    def __init__(self, detector: LandmarkDetector) -> None:
        self.layout, self.prepare, self._detector = detector.layout, detector.prepare, detector
        self.batches: list[int] = []

    def predict_prepared(self, images, *, min_probability):
        self.batches.append(len(images))
        return self._detector.predict_prepared(images, min_probability=min_probability)


def batched(options: ServeOptions) -> Callable[..., Any]:
    """What `serve.batch` does, which works in a replica of Ray Serve alone."""

    def batch(several):
        waiting: list[tuple[Any, asyncio.Future]] = []
        work: set[asyncio.Task] = set()
        turn = asyncio.Lock()

        async def collect() -> None:
            async with turn:
                await asyncio.sleep(options.batch_wait_ms / 1000 if len(waiting) < options.max_batch else 0)
                batch, waiting[:] = waiting[: options.max_batch], waiting[options.max_batch :]
                if batch:
                    found = await several([image for image, _ in batch])
                    for (_, future), one in zip(batch, found, strict=True):
                        if not future.done():
                            future.set_result(one)

        def single(image: Any) -> asyncio.Future:
            waiting.append((image, asyncio.get_running_loop().create_future()))
            work.add(task := asyncio.ensure_future(collect()))
            task.add_done_callback(work.discard)
            return waiting[-1][1]

        return single

    return batch


def served(detector: Any, ask: Ask, **options: Any) -> Any:
    """Return what `ask` returns of a client of a server."""

    async def run() -> Any:
        chosen = ServeOptions(**options)
        engine = Engine(detector, chosen, batched(chosen))
        transport = httpx2.ASGITransport(make_app(engine, chosen))
        async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
            try:
                return await asyncio.wait_for(ask(client), 60)
            finally:
                engine.close()

    return asyncio.run(run())


async def slowly(content: bytes, pause: float, size: int = 1000) -> AsyncIterator[bytes]:
    """Yield a body in pieces, with a pause before each."""
    for start in range(0, len(content), size):
        await asyncio.sleep(pause)
        yield content[start : start + size]
