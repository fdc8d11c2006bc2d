"""Actor through which the driver gives one job after another to training workers that stay alive.

Jobs are numbered from 0, and a job is put only after the one before it has finished. For each job:

1. The driver calls `put(number, job)`.
2. Every worker calls `after(last)` with the number of the last job that it did, -1 at first. The call returns when a newer,
   unfinished job exists. So a worker that was restarted gets the job that was interrupted.
3. The workers do it, and the driver waits with `wait_until_finished`:

   * a training: one worker calls `begin(iteration)` when its first batch is ready, `send(iteration, metrics)` during the
     training, and `finish(number)` at its end;
   * a map over parts: each worker calls `take` for one part after the other, and `hand_in` with its result, or `fail`;
   * shards of K-means: the coordinator calls `call(rank, ...)`. The worker gets it from `next_call` and calls `answer`. The
     driver calls `finish`.

Every worker process calls `join` first. If its rank had another process before, that one is dead: its parts are handed out
again, and the calls that it had taken are lost. `close` ends the workers: `after` then returns None.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray_kplm.runtime.call_board import CallBoard
from ray_kplm.runtime.part_board import PartBoard
from ray_kplm.runtime.progress_channel import ProgressChannel


class JobQueue(ProgressChannel):
    """The current job, and the messages of the workers about it.

    It is an asyncio actor: any number of calls may wait in it at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._number, self._job, self._finished, self._closed = -1, None, -1, False
        self._changed = asyncio.Condition()
        self._processes: dict[int, str] = {}
        self._starts: list[int] = []
        self._began = self._ended = 0.0
        self._parts, self._calls = PartBoard(0), CallBoard()
        self._error: Exception | None = None

    # -- called by the driver

    async def put(self, number: int, job: Any, parts: int = 0) -> None:
        """Make `job` the current job; `parts` is the number of parts of a map."""
        async with self._changed:
            self._number, self._job, self._starts = number, job, []
            self._parts, self._error = PartBoard(parts), None
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

    async def results(self) -> tuple[dict[int, Any], Exception | None]:
        """Return the results of the current map by the numbers of the parts, and the error that ended it."""
        return self._parts.results, self._error

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

    async def join(self, rank: int, process: str) -> None:
        """Declare that a process, named uniquely, is the worker of this rank from now on."""
        async with self._changed:
            former = self._processes.get(rank)
            self._processes[rank] = process
            if former is not None:
                self._parts.release(former)
                self._calls.lose(former)
                self._changed.notify_all()

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
        """Record that all workers have finished the job. Called by one worker, or by the driver."""
        self._ended = time.monotonic()
        async with self._changed:
            self._finished = number
            self._changed.notify_all()

    # -- a map over parts

    async def take(self, number: int, rank: int, process: str, waits: bool = True) -> int | None:
        """Return a part of a map when one is open, or None when the map is finished.

        With `waits` false None is returned if no part is open now: a worker that has not handed in all of its parts would wait
        for itself.
        """
        async with self._changed:
            if waits:
                await self._changed.wait_for(lambda: self._needs_no(rank, process, number) or self._parts.has_open)
            is_none = self._needs_no(rank, process, number) or not self._parts.has_open
            return None if is_none else self._parts.take(process)

    async def hand_in(self, number: int, part: int, result: Any) -> None:
        """Record the result of a part."""
        if self._is_over(number):
            return
        self._parts.finish(part, result)
        self.send(len(self._parts.results), None)
        if self._parts.is_finished:
            await self.finish(number)

    async def fail(self, number: int, error: Exception) -> None:
        """End a map with an error that its repetition would raise again."""
        if not self._is_over(number):
            self._error = error
            await self.finish(number)

    # -- shards of K-means

    async def call(self, rank: int, content: Any) -> Any:
        """Let the worker of a rank do something, and return its answer.

        Raises:
            LostCallError: the worker died before it answered, or does not have what was called.
        """
        async with self._changed:
            call = self._calls.add(rank, content)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._calls.is_settled(call) or self._is_over(self._number))
            return self._calls.close(call)

    async def next_call(self, number: int, rank: int, process: str) -> tuple[int, Any] | None:
        """Return the number and the content of the next call to a rank when it exists, or None when the job is finished."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._needs_no(rank, process, number) or self._calls.has_open(rank))
            return None if self._needs_no(rank, process, number) else self._calls.take(rank, process)

    async def answer(self, call: int, answer: Any, error: Exception | None = None) -> None:
        """Record what a call returned or raised."""
        async with self._changed:
            self._calls.settle(call, answer, error)
            self._changed.notify_all()

    def _needs_no(self, rank: int, process: str, number: int) -> bool:
        """Whether a job has nothing more for a process: it is over, or the process, dead, was replaced while it waited."""
        return self._is_over(number) or self._processes[rank] != process

    def _is_over(self, number: int) -> bool:
        return self._closed or self._finished >= number
