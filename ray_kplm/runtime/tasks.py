"""Run plain functions as Ray tasks, for steps that do not map over the parts of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayTaskError

from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import DEFAULT_SCHEDULING

T = TypeVar("T")


class Shared(Generic[T]):
    """A value in Ray's object store: a node receives it once, however many of its tasks read it. Picklable."""

    def __init__(self, value: T) -> None:
        self._reference = ray.put(value)

    def get(self) -> T:
        """Return the value."""
        value: T = ray.get(self._reference)
        return value


def run_task(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(*arguments)`, run on any node with a free CPU.

    Raises:
        KplmError: raised by the function.
    """
    ((_, result),) = run_tasks(function, [arguments], at_most=1)
    return result


def run_tasks(
    function: Callable[..., Any], calls: Sequence[Sequence[Any]], *, at_most: int, cpus: float = 1.0, gpus: float = 0.0
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the call, its result) as calls finish.

    Args:
        function: called with the arguments of each call.
        calls: arguments of each call, small or `Shared`.
        at_most: number of calls that run at a time.
        cpus: CPUs that each reserves.
        gpus: GPUs that each reserves: a share of one, or whole ones.

    Raises:
        KplmError: raised by a call.
    """
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=DEFAULT_SCHEDULING)(function)
    pending = iter(range(len(calls)))
    running: dict[ray.ObjectRef, int] = {}
    while True:
        while len(running) < at_most and (index := next(pending, None)) is not None:
            running[remote.remote(*calls[index])] = index
        if not running:
            return
        [ready], _ = ray.wait(list(running), num_returns=1)
        index = running.pop(ready)
        try:
            result = ray.get(ready)
        except RayTaskError as error:
            raise unwrap_user_error(error) or error from None
        yield index, result


def cluster_cpus() -> int:
    """Return the number of logical CPUs of the cluster, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
