"""Work on the parts of a table in this process."""

import numpy as np
import pytest

from ray_kplm.config import ComputeConfig
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.errors import DataError
from ray_kplm.parts import Pool, ThisProcess

PARTS = Selection(["a", "b", "c"], [np.arange(n) for n in (3, 0, 2)])


class Count:
    made = 0

    def __init__(self, plus: int, broken: str = "") -> None:
        Count.made += 1
        self._plus, self._broken = plus, broken

    def __call__(self, part, rows):
        if part == self._broken:
            raise DataError(f"{part}: is broken")
        return {"part": part, "rows": len(rows) + self._plus}


def test_one_worker_takes_all_parts_and_progress_is_reported_after_each():
    Count.made, calls = 0, []
    answers = ThisProcess().map(Count, {"plus": 10}, PARTS, Pool(4), lambda *call: calls.append(call))
    assert [(answer["part"], answer["rows"]) for answer in answers] == [("a", 13), ("b", 10), ("c", 12)]
    assert Count.made == 1
    assert calls == [(1 / 3, "1/3 parts"), (2 / 3, "2/3 parts"), (1.0, "3/3 parts")]


def test_no_parts_need_no_worker():
    Count.made = 0
    assert ThisProcess().map(Count, {"plus": 0}, Selection([], []), Pool(1)) == []
    assert Count.made == 0


def test_the_error_of_a_part_ends_the_work():
    calls = []
    with pytest.raises(DataError, match="b: is broken"):
        ThisProcess().map(Count, {"plus": 0, "broken": "b"}, PARTS, Pool(1), lambda *call: calls.append(call))
    assert len(calls) == 1


def test_a_shared_value_is_the_value():
    value = [1, 2]
    assert ThisProcess().share(value).get() is value


@pytest.mark.parametrize(("workers", "threads", "expected"), [(1, 0, 0), (4, 0, 0), (2, 1, 2), (3, 2, 6)])
def test_one_worker_has_the_threads_of_all(workers, threads, expected):
    layout = ThisProcess().layout(ComputeConfig(extract_workers=workers, threads=threads))
    assert (layout.extract_workers, layout.threads) == (1, expected)


class Streamed(Count):
    def stream(self, items):
        return ({"part": part, "rows": len(rows), "streamed": True} for part, rows in items)


def test_a_worker_that_streams_is_given_all_parts_as_a_stream():
    answers = ThisProcess().map(Streamed, {"plus": 0}, PARTS, Pool(1))
    assert [(answer["part"], answer["rows"], answer["streamed"]) for answer in answers] == [
        ("a", 3, True),
        ("b", 0, True),
        ("c", 2, True),
    ]
