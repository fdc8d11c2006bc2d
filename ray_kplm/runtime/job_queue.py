"""Actor through which the driver gives one job after another to training workers that stay alive.

Jobs are numbered from 0, and a job is put only after the one before it has finished. For each job:

1. The driver calls `put(number, job)`.
2. Every worker calls `after(last)` with the number of the last job that it did, -1 at first. The call returns when a newer,
   unfinished job exists. So a worker that was restarted gets the job that was interrupted.
3. One worker calls `begin(iteration)` when its first batch is ready, `send(iteration, metrics)` during the training, and
   `finish(number)` at its end. The driver waits with `wait_until_begun` and `wait_until_finished`.

`close` ends the workers: `after` then returns None.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray_kplm.runtime.progress_channel import ProgressChannel


class JobQueue(ProgressChannel):
    """The current job, and the messages of the workers about it.

    It is an asyncio actor: any number of calls may wait in it at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._number, self._job, self._finished, self._closed = -1, None, -1, False
        self._changed = asyncio.Condition()
        self._starts: list[int] = []
        self._began = self._ended = 0.0

    # -- called by the driver

    async def put(self, number: int, job: Any) -> None:
        """Make `job` the current job."""
        async with self._changed:
            self._number, self._job, self._starts = number, job, []
            self._changed.notify_all()

    async def wait_until_begun(self, number: int) -> None:
        """Return when a worker has begun the job."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._number >= number and self._starts)

    async def wait_until_finished(self, number: int) -> None:
        """Return when the workers have finished the job."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._finished >= number)

    async def stats(self) -> dict[str, Any]:
        """Return figures of the current job.

        Returns:
            `starts`: iterations at which it was begun, one more after each restart; `iterating_seconds`: time from the last of
            these to its end.
        """
        return {"starts": self._starts, "iterating_seconds": round(self._ended - self._began, 2)}

    async def close(self) -> None:
        """Declare that no more jobs follow."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    # -- called by the workers, and by the controller that starts them

    async def wait_for_first_job(self) -> bool:
        """Return True when the queue has a job, or False when it is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._number >= 0)
            return not self._closed

    async def after(self, number: int) -> tuple[int, Any] | None:
        """Return the next unfinished job after `number` and its number when it exists, or None when the queue is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._number > max(number, self._finished))
            return None if self._closed else (self._number, self._job)

    async def begin(self, iteration: int) -> None:
        """Record that the current job starts, or continues after a restart, at this iteration. Called by one worker."""
        self._began = time.monotonic()
        async with self._changed:
            self._starts.append(iteration)
            self._changed.notify_all()

    async def finish(self, number: int) -> None:
        """Record that all workers have finished the job. Called by one worker."""
        self._ended = time.monotonic()
        async with self._changed:
            self._finished = number
            self._changed.notify_all()
