"""Work on parts through Ray Data: what comes back, and when it is given up."""

import time

import pytest

from ray_kplm.datasets.selection import everything
from ray_kplm.errors import RunError
from ray_kplm.steps import parts
from ray_kplm.steps.parts import Pool, map_parts

PARTS = everything([f"part-{number:05d}.parquet" for number in range(3)], [4, 2, 3])


class Count:
    def __init__(self, pause_s):
        self._pause_s = pause_s

    def __call__(self, part, rows):
        time.sleep(self._pause_s if part == PARTS.parts[1] else 0)
        return {"part": int(part[5:10]), "rows": len(rows)}


def test_every_part_is_answered_for(ray_cluster):
    heard = []
    found = map_parts(Count, {"pause_s": 0}, PARTS, Pool(2), lambda done, count: heard.append((done, count)))
    assert sorted((answer["part"], answer["rows"]) for answer in found) == [(0, 4), (1, 2), (2, 3)]
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_a_part_that_never_ends_is_given_up_in_one_line(ray_cluster, monkeypatch):
    monkeypatch.setattr(parts, "_PATIENCE_S", 6.0)
    with pytest.raises(RunError, match="of 3 parts are finished, and none was in 0 minutes: a worker hangs"):
        map_parts(Count, {"pause_s": 40}, PARTS, Pool(1), None)


def test_no_parts_need_no_workers():
    assert map_parts(Count, {"pause_s": 0}, everything([], []), Pool(1)) == []
