"""Work on the parts of a table: one Ray Data row a part, a pool of actors, small answers.

A worker writes its part itself, atomically, into the table's folder, and answers with numbers. A part that is there is
done: an interrupted job continues with the missing ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

Progress = Callable[[int, int], None]
"""Called as parts finish: how many are done, of how many."""


@dataclass(frozen=True)
class Pool:
    """Actors that hold a worker, and what each reserves."""

    actors: int
    cpus: float = 1.0
    gpus: float = 0.0


def map_parts(
    worker: type,
    arguments: dict[str, Any],
    parts: Sequence[str],
    pool: Pool,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """`worker(**arguments)` is built once an actor and called with each part's name; the answers (flat dicts of numbers), unordered.

    A killed actor's part is tried again elsewhere (Ray Data).
    """
    if not parts:
        return []
    dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    answers = dataset.map_batches(
        _PartCall,
        fn_constructor_kwargs={"worker": worker, "arguments": arguments},
        batch_size=1,
        compute=ActorPoolStrategy(size=min(pool.actors, len(parts))),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    found = []
    for answer in answers.iter_rows():
        found.append(answer)
        if progress:
            progress(len(found), len(parts))
    return found


class _PartCall:
    """Adapter: Ray Data's batch of one row -> a call with a part's name."""

    def __init__(self, worker: type, arguments: dict[str, Any]) -> None:
        self._worker = worker(**arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        answer = self._worker(str(batch["part"][0]))
        return {key: [value] for key, value in answer.items()}
