"""Trials through Ray Tune: figures by name, lines and reports on the way, and one that fails does not take the others along."""

import os
import signal
from pathlib import Path

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.errors import CollapseError
from ray_kplm.runtime.tune import _Room, run_trials
from ray_kplm.storage import Folder


class Source:
    """Some numbers of landmarks; keeps all that it is told, and cannot be pickled."""

    def __init__(self, landmarks, folder):
        self.left, self.folder = iter(landmarks), folder
        self.reports, self.figures = [], {}

    def __reduce__(self):
        raise AssertionError("the source stays in the driver")

    def next(self):
        k = next(self.left, None)
        return None if k is None else (f"K={k}", load_config(None, [f"method.landmarks={k}", f"run={self.folder}"]))

    def reported(self, name, report):
        self.reports.append((name, report["round"]))
        (Path(self.folder) / f"{name} {report['round']}").touch()

    def ended(self, name, figures):
        self.figures[name] = figures


def trial(config, told, report):
    k, folder = config.method.landmarks, Path(config.run)
    told(f"K is {k}")
    for number in (0, 1):
        report({"round": number})
        assert (folder / f"K={k} {number}").exists(), "a report returns when the source has had it"
    if k == 7:
        raise CollapseError("too few points")
    if k == 8:
        raise RuntimeError("a bug")
    if k == 9 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"forward_nme": float(k), "nothing": None, "nested": {"a": 1}}


def test_trials(ray_cluster, tmp_path):
    source, lines = Source((5, 7, 8, 9, 6), tmp_path), []
    scratch = Folder.at(tmp_path / "tune")
    run_trials(trial, source, max_concurrent=2, scratch=scratch, told=lambda name, line: lines.append((name, line)))
    assert set(source.figures) == {"K=5", "K=6", "K=7", "K=8", "K=9"}
    assert source.figures["K=5"] == {"forward_nme": 5.0, "nothing": None, "nested": {"a": 1}}
    assert source.figures["K=6"]["forward_nme"] == 6.0
    assert source.figures["K=7"] == {"error": "too few points", "error_type": "CollapseError"}
    assert source.figures["K=8"] == {"error": "RuntimeError: a bug", "error_type": "RuntimeError"}
    assert source.figures["K=9"]["forward_nme"] == 9.0  # its process was killed, and started again
    assert [number for name, number in source.reports if name == "K=9"] == [0, 1, 0, 1]
    assert [number for name, number in source.reports if name == "K=5"] == [0, 1]
    assert sorted(set(lines)) == [(f"K={k}", f"K is {k}") for k in (5, 6, 7, 8, 9)]
    assert not scratch.exists()


def test_room_by_what_each_run_reserves(ray_cluster):
    """The cluster has four CPUs; a run of one worker takes two, and one more serves all."""
    one, two, gpu = ComputeConfig(), ComputeConfig(workers=2), ComputeConfig(gpus_per_worker=2)
    room = _Room(None)
    assert room.has(two)  # the first run starts in any case: nodes may come
    room.take("a", one)
    assert not room.has(one)  # 2 + 2 + 1
    assert not room.has(None)
    assert room.has(ComputeConfig(cpus_per_worker=0.5, data_workers=0))
    room.leave("a")
    room.take("b", ComputeConfig(cpus_per_worker=0.5, data_workers=0))
    assert room.has(one)
    assert not room.has(two)
    assert not room.has(gpu)
    given = _Room(2)
    given.take("a", two)
    assert given.has(gpu)
    given.take("b", gpu)
    assert not given.has(None)
