"""Work for workers that stay: a small actor through which the driver hands them one job after the other."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray_kplm.runtime.progress_channel import ProgressChannel


class JobQueue(ProgressChannel):
    """Holds the newest job, and the workers' news of it. All methods may be called at once, and wait within the actor.

    Jobs are numbered from 0. A worker that was started again asks as one that has done none, and gets the job that is not
    finished.
    """

    def __init__(self) -> None:
        super().__init__()
        self._number, self._job, self._finished, self._closed = -1, None, -1, False
        self._changed = asyncio.Condition()
        self._starts: list[int] = []
        self._began = self._ended = 0.0

    async def put(self, number: int, job: Any) -> None:
        async with self._changed:
            self._number, self._job, self._starts = number, job, []
            self._changed.notify_all()

    async def wanted(self) -> bool:
        """Returns when there is a job; False: there will be none."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._number >= 0)
            return not self._closed

    async def begin(self, iteration: int) -> None:
        """Said by one worker: the newest job is begun, or gone on with, at this iteration."""
        self._began = time.monotonic()
        async with self._changed:
            self._starts.append(iteration)
            self._changed.notify_all()

    async def begun(self, number: int) -> None:
        """Returns when the job is begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._number >= number and self._starts)

    async def facts(self) -> dict[str, Any]:
        """Of the newest job, when it is done: where it was begun, each time, and how long the last of these times took."""
        return {"starts": self._starts, "iterating_seconds": round(self._ended - self._began, 2)}

    async def close(self) -> None:
        """There are no more jobs."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def after(self, number: int) -> tuple[int, Any] | None:
        """The next job once it is there; None: there are no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._number > max(number, self._finished))
            return None if self._closed else (self._number, self._job)

    async def finish(self, number: int) -> None:
        """Said by one worker, when all have done the job."""
        self._ended = time.monotonic()
        async with self._changed:
            self._finished = number
            self._changed.notify_all()

    async def finished(self, number: int) -> None:
        """Returns when the job is done."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._finished >= number)
