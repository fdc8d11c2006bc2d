"""Plain functions as Ray tasks, for steps that need no parts of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayTaskError

from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import ANYWHERE

T = TypeVar("T")


class Shared(Generic[T]):
    """A value in Ray's object store: sent once to a node, however many tasks read it there. Picklable."""

    def __init__(self, value: T) -> None:
        self._reference = ray.put(value)

    def get(self) -> T:
        """Return the value."""
        value: T = ray.get(self._reference)
        return value


def run_task(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(*arguments)`, run on any node with a free CPU. Raises what the function raises."""
    ((_, answer),) = run_tasks(function, [arguments], at_most=1)
    return answer


def run_tasks(
    function: Callable[..., Any], calls: Sequence[Sequence[Any]], *, at_most: int, cpus: float = 1.0, gpus: float = 0.0
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the call, answer) as calls end, with `at_most` of them running at a time.

    Args:
        function: called with the arguments of each call.
        calls: arguments of each call, small or `Shared`.
        at_most: how many run at a time.
        cpus: what each reserves.
        gpus: what each reserves, a share of a GPU or whole ones.

    Raises:
        KplmError: what a call raised.
    """
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=ANYWHERE)(function)
    waiting = iter(range(len(calls)))
    running: dict[ray.ObjectRef, int] = {}
    while True:
        while len(running) < at_most and (index := next(waiting, None)) is not None:
            running[remote.remote(*calls[index])] = index
        if not running:
            return
        [ready], _ = ray.wait(list(running), num_returns=1)
        index = running.pop(ready)
        try:
            answer = ray.get(ready)
        except RayTaskError as error:
            raise unwrap_user_error(error) or error from None
        yield index, answer


def cluster_cpus() -> int:
    """Return the logical CPUs of the cluster, one at least."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
