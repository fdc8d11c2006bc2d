"""Which windows a store reads, counts and keeps, without Ray."""

import asyncio

import numpy as np
import pytest

from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.runtime.window_store import Read, WindowStore

PARTS = 41
SIZES = np.random.default_rng(0).integers(400, 513, PARTS)
USABLE = SIZES - np.random.default_rng(1).integers(0, 60, PARTS)
PLAN = WindowPlan(PARTS, int(SIZES.sum()), 10_000, 16, True, (1,))


class Storage:
    """Parts whose number of usable images is known when it is awaited."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.counted: list[int] = []

    def store(self) -> WindowStore:
        return WindowStore(PLAN, 4 * 512, self._read, self._count)

    async def _usable(self, part: int) -> int:
        await asyncio.sleep(0)
        return int(USABLE[part])

    def _read(self, part: int) -> Read:
        self.read.append(part)
        return Read(("images", part), ("labels", part), asyncio.ensure_future(self._usable(part)))

    def _count(self, part: int) -> asyncio.Future:
        self.counted.append(part)
        return asyncio.ensure_future(self._usable(part))


@pytest.fixture
def storage() -> Storage:
    return Storage()


def ask(store: WindowStore, *places: int, rank: int = 0, workers: int = 1) -> list[list]:
    async def all_of_them():
        return [await store.windows(place, place + 127, rank, workers) for place in places]

    return asyncio.run(all_of_them())


def ends() -> np.ndarray:
    """Return the place of the first view behind each window of two passes."""
    return np.cumsum([USABLE[PLAN.members(window)].sum() for window in range(2 * PLAN.windows)])


def test_two_passes_read_each_part_twice_and_hold_four_windows_at_most(storage):
    store, places = storage.store(), range(0, 2 * int(USABLE.sum()) - 128, 128)

    async def go_through():
        for place in places:
            found = await store.windows(place, place + 127, 0, 1)
            numbers = [window.number for window in found]
            assert numbers == sorted({int(np.searchsorted(ends(), p, side="right")) for p in (place, place + 127)})
            assert found[0].start == (ends()[numbers[0] - 1] if numbers[0] else 0)
            assert found[0].images == [("images", part) for part in PLAN.members(numbers[0])]
            np.testing.assert_array_equal(found[0].counts, USABLE[PLAN.members(numbers[0])])
            assert len(store.held()) <= 4

    asyncio.run(go_through())
    assert storage.counted == []
    twice = storage.read[: 2 * PARTS]
    assert sorted(twice) == sorted([*range(PARTS), *range(PARTS)])
    assert len(storage.read) - len(twice) <= 8  # the window ahead, of a third pass


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.6])
def test_a_training_that_continues_reads_no_images_of_earlier_windows(storage, share):
    place = int(share * USABLE.sum())
    ((window, *_),) = ask(storage.store(), place)
    number = int(np.searchsorted(ends(), place, side="right"))
    assert (window.number, window.start) == (number, ends()[number - 1] if number else 0)
    assert len(storage.read) <= 5 * PLAN.window_parts
    assert len(storage.counted) == len(set(storage.counted))


def test_windows_behind_the_slowest_worker_are_released(storage):
    store, later = storage.store(), [0, *ends()]

    async def go_through():
        async def asked(window, rank, workers=2):
            found = await store.windows(later[window], later[window], rank, workers)
            return [each.number for each in found], store.held()

        assert await asked(0, 0) == ([0], [0, 1])
        assert await asked(2, 0) == ([2], [0, 1, 2, 3])  # worker 1 has not begun
        assert await asked(0, 1) == ([0], [0, 1, 2, 3])
        assert await asked(2, 1) == ([2], [1, 2, 3])
        assert await asked(4, 0) == ([4], [1, 2, 3, 4, 5])  # worker 1 still needs window 2, and perhaps the one before
        assert await asked(4, 0, workers=1) == ([4], [3, 4, 5])  # after a restart with one worker
        assert await asked(0, 0, workers=1) == ([0], [0, 1, 3, 4, 5])  # and from an earlier iteration

    asyncio.run(go_through())
