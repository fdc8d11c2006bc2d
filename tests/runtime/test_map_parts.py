"""Work on parts through Ray Data: answers, retries and errors."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.errors import RunError, StorageError
from ray_kplm.runtime import map_parts as module
from ray_kplm.runtime.map_parts import Pool, map_parts

PARTS = full_selection([f"part-{number:05d}.parquet" for number in range(3)], [4, 2, 3])


class Count:
    def __init__(self, pause_s):
        self._pause_s = pause_s

    def __call__(self, part, rows):
        time.sleep(self._pause_s if part == PARTS.parts[1] else 0)
        return {"part": int(part[5:10]), "rows": len(rows)}


def test_every_part_gives_an_answer_and_advances_the_progress(ray_cluster):
    calls = []
    answers = map_parts(Count, {"pause_s": 0}, PARTS, Pool(2), lambda *call: calls.append(call))
    assert sorted((answer["part"], answer["rows"]) for answer in answers) == [(0, 4), (1, 2), (2, 3)]
    assert calls == [(1 / 3, "1/3 parts"), (2 / 3, "2/3 parts"), (1, "3/3 parts")]


class ProcessId:
    """Answers with its process, and with the number of workers of this job that were built there."""

    built = 0

    def __init__(self, wait_for=None):
        type(self).built += 1
        self._wait_for = wait_for

    def __call__(self, part, rows):
        while self._wait_for and not self._wait_for.exists():
            time.sleep(0.05)
        return {"process": os.getpid(), "built": self.built}


def test_a_process_builds_one_worker_a_job_and_serves_the_next_job(ray_cluster):
    first, second = (map_parts(ProcessId, {}, PARTS, Pool(1)) for _ in range(2))
    processes = {answer["process"] for answer in first}
    assert len({(answer["process"], answer["built"]) for answer in first}) == len(processes)
    assert processes & {answer["process"] for answer in second}


def test_a_worker_with_a_gpu_is_a_process_that_ends_with_the_job(ray_cluster):
    processes = {answer["process"] for answer in map_parts(ProcessId, {}, PARTS, Pool(1, gpus=1.0))}
    assert len(processes) == 1
    psutil.wait_procs([psutil.Process(p) for p in processes if psutil.pid_exists(p)], timeout=30)
    assert not any(map(psutil.pid_exists, processes))


def test_the_part_of_a_killed_process_is_tried_again(ray_cluster, kill_workers, tmp_path):
    killed = []

    def kill():
        while not killed:
            killed.extend([1] * kill_workers("MapBatches(_work_on_part)"))
            time.sleep(0.05)
        (tmp_path / "go").touch()

    with ThreadPoolExecutor() as pool:
        pool.submit(kill)
        found = map_parts(ProcessId, {"wait_for": tmp_path / "go"}, PARTS, Pool(1))
    assert killed
    assert len(found) == len(PARTS.parts)


class FullDisk:
    def __call__(self, part, rows):
        raise StorageError("store: it is full")


@pytest.mark.parametrize("gpus", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_error_of_a_worker_is_raised_with_its_own_message(ray_cluster, gpus):
    with pytest.raises(StorageError) as caught:
        map_parts(FullDisk, {}, PARTS, Pool(1, gpus=gpus))
    assert str(caught.value) == "store: it is full"


@pytest.mark.slow
def test_a_part_that_never_ends_is_an_error_of_one_line(ray_cluster, monkeypatch):
    monkeypatch.setattr(module, "_NO_PROGRESS_TIMEOUT_S", 6.0)
    with pytest.raises(RunError, match="of 3 parts are finished, and none was in 0 minutes: a worker hangs"):
        map_parts(Count, {"pause_s": 40}, PARTS, Pool(1))


def test_no_parts_start_no_worker():
    assert map_parts(Count, {"pause_s": 0}, full_selection([], []), Pool(1)) == []


class Together:
    """Answers with the number of parts that it was given at a time."""

    def __call__(self, part, rows):
        return {"together": 0}

    def stream(self, items):
        given = list(items)
        return ({"together": len(given)} for _ in given)


MANY = full_selection([f"part-{number:05d}.parquet" for number in range(24)], [2] * 24)


def test_a_worker_beside_a_gpu_is_given_several_parts_at_a_time_if_it_overlaps_them(ray_cluster):
    assert [answer["together"] for answer in map_parts(Together, {}, MANY, Pool(2, gpus=0.5))] == [3] * 24
    assert [answer["together"] for answer in map_parts(Together, {}, MANY, Pool(2))] == [1] * 24
