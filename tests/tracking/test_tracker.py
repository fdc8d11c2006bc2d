"""Each run directory has one MLflow run without repeated steps, also after interruptions."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import TrackingError
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking import track_group, track_run
from ray_kplm.tracking.sender import SystemMetrics

DATASET = {"name": "cats"}


def test_a_resumed_run_continues_its_mlflow_run_without_repeating_a_step(run, place, client, stored, curve):
    def interrupted():
        with track_run(run, DATASET) as tracker:
            tracker.log_metrics({"loss": 0.5}, 10)
            tracker.log_metrics({"loss": 0.4}, 20)
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        interrupted()
    first = stored(run)
    assert first.info.status == "FAILED"
    with track_run(run, DATASET) as tracker:
        assert tracker.run_id == first.info.run_id
        assert stored(run).info.status == "RUNNING"
        tracker.log_metrics({"loss": 0.41}, 20)  # repeated after the resume
        tracker.log_metrics({"loss": 0.3}, 30)
    assert stored(run).info.status == "FINISHED"
    assert curve(run, "loss") == [(10, 0.5), (20, 0.4), (30, 0.3)]
    assert client(run).get_experiment(first.info.experiment_id).name == "kplm cats"
    assert (place / "mlflow.db").exists()
    assert not run.folder.exists("tracking")


def test_parameters_are_the_flat_configuration_beyond_mlflows_limits(run, place, stored, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    values = {f"p{number}": number for number in range(250)} | {"long": "x" * 10_000, "empty": ""}
    with track_group(run.folder / "group", DATASET, values):
        pass
    group = Run(run.folder / "group", run.config)
    found = stored(group).data.params
    assert len(found) == 252
    assert found["p249"] == "249"
    assert found["long"] == "x" * 6000
    with track_run(run, DATASET):
        pass
    assert stored(run).data.params == {name: str(value) for name, value in run.config.flat().items()}


def test_configuration_versions_and_environment_are_artifacts(run, tmp_path):
    with track_run(run, DATASET) as tracker:
        pass
    got = mlflow.artifacts.download_artifacts(run_id=tracker.run_id, tracking_uri=tracker.uri, dst_path=str(tmp_path))
    assert sorted(os.listdir(got)) == ["config.yaml", "environment.txt", "number_format.json", "versions.json"]
    assert (Path(got) / "config.yaml").read_bytes() == run.folder.read_bytes("config.yaml")
    assert f"mlflow=={mlflow.__version__}" in (Path(got) / "environment.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED"), (ValueError, "FAILED")]
)
def test_the_status_follows_from_how_the_run_ended(run, stored, error, status):
    def stopped():
        with track_run(run, DATASET):
            raise error

    with pytest.raises(error):
        stopped()
    assert stored(run).info.status == status
    assert run.folder.read_json("mlflow.json")["status"] == status


def test_system_metrics_are_logged_once_a_step(run, stored, curve, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    name = "system/cpu_utilization_percentage"
    for count in (1, 2):
        with track_run(run, DATASET):
            deadline = time.monotonic() + 120
            while len(curve(run, name)) < count and time.monotonic() < deadline:
                time.sleep(0.2)
    steps = [step for step, _ in curve(run, name)]
    assert len(steps) >= 2
    assert len(set(steps)) == len(steps)
    assert {"system/system_memory_usage_percentage", "system/disk_usage_percentage"} <= set(stored(run).data.metrics)

    found = []
    for switch in ("true", "false"):
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", switch)
        measured = SystemMetrics(0, "http://127.0.0.1:9")
        time.sleep(0.15)
        found.append(bool(measured.measure()))
    assert found == [True, False]


WORK = """
import sys, time
from ray_kplm.run import Run
from ray_kplm.tracking import track_run

with track_run(Run.open(sys.argv[1]), {"name": "cats"}) as tracker:
    for step in range(10, 10_000, 10):
        tracker.log_metrics({"loss": 1 / step}, step)
        print(step, flush=True)
        time.sleep(0.05)
"""


def work(run, until: int) -> subprocess.Popen:
    """A process that tracks a run, as soon as it has come so far."""
    process = subprocess.Popen([sys.executable, "-c", WORK, run.folder.path], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= until:
            return process
    raise AssertionError("ended early")


def test_a_run_is_killed_after_sigterm_and_continued_after_sigkill(run, stored, curve):
    process = work(run, 200)
    process.send_signal(signal.SIGTERM)
    last = int(f"200 {process.stdout.read()}".split()[-1])
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    killed = stored(run)
    assert killed.info.status == "KILLED"
    assert [step for step, _ in curve(run, "loss")] == list(range(10, last + 1, 10))

    process = work(run, last + 300)
    time.sleep(1.5)  # what is older than a second is on its way
    process.kill()
    process.wait(timeout=60)
    assert stored(run).info.status == "RUNNING"
    with track_run(run, DATASET) as tracker:
        assert tracker.run_id == killed.info.run_id
        for step in range(last + 200, last + 601, 10):  # from its last checkpoint
            tracker.log_metrics({"loss": 1 / step}, step)
    steps = [step for step, _ in curve(run, "loss")]
    assert steps == list(range(10, steps[-1] + 1, 10))
    assert steps[-1] >= last + 600
    assert stored(run).info.status == "FINISHED"


def test_a_run_stays_in_the_store_of_the_environment_variable(run, copy_store, tmp_path, monkeypatch):
    copy_store(tmp_path / "elsewhere.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    with track_run(run, DATASET) as tracker:
        assert tracker.uri == f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with track_run(run, DATASET) as again:
        assert (again.run_id, again.uri) == (tracker.run_id, tracker.uri)


def test_an_unreachable_store_is_an_error_before_any_work(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        TrackingError, match=r"127.0.0.1:9: no MLflow run can be created there .* unset MLFLOW_TRACKING_URI"
    ):
        track_run(run, DATASET).__enter__()


def test_a_moved_folder_takes_its_store_along(run, stored, place, tmp_path):
    with track_run(run, DATASET) as tracker:
        tracker.log_metrics({"loss": 1.0}, 10)
    (tmp_path / "moved").mkdir()
    for name in ("mlflow.db", run.folder.name):
        (place / name).rename(tmp_path / "moved" / name)
    moved = Run.open(f"{tmp_path}/moved/{run.folder.name}")
    with track_run(moved, DATASET) as again:
        assert again.run_id == tracker.run_id
    (tmp_path / "moved" / "mlflow.db").rename(place / "mlflow.db")


def test_a_run_deleted_in_mlflow_is_created_again(run, client, stored):
    with track_run(run, DATASET) as tracker:
        tracker.log_metrics({"loss": 1.0}, 10)
    client(run).delete_run(tracker.run_id)
    with track_run(run, DATASET) as again:
        assert again.run_id != tracker.run_id
    assert stored(run).info.status == "FINISHED"


def test_runs_of_a_group_are_children_of_one_parent(place, client, copy_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = Folder.at(place / "ablation")
    copy_store(place / "ablation" / "mlflow.db")
    runs = [Run.start(load_config(None, [f"run={folder.path}/seed={seed}", f"seed={seed}"])) for seed in (0, 1, 2)]
    for run in runs:
        run.save()
    with track_group(folder, DATASET, {"over": "seed"}) as group:
        for run in runs[:2]:
            with track_run(run, DATASET, group.parent):
                pass
        left = track_run(runs[2], DATASET, group.parent)  # its process is killed without a word
        left.__enter__()
        group.log_metrics({"best": 4.2}, 0)
        group.log_file("rows.json", b"[]")
    with track_group(folder, DATASET, {"over": "seed"}) as again:
        assert again.run_id == group.run_id
    assert group.uri == f"sqlite:///{place}/ablation/mlflow.db"
    parent = client(runs[0]).get_run(group.run_id)
    assert (parent.info.run_name, parent.data.params, parent.data.metrics["best"]) == (
        "ablation",
        {"over": "seed"},
        4.2,
    )
    assert [a.path for a in client(runs[0]).list_artifacts(group.run_id)] == ["rows.json"]
    found = client(runs[0]).search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{group.run_id}'")
    assert {child.info.run_name: child.info.status for child in found} == {
        "seed=0": "FINISHED", "seed=1": "FINISHED", "seed=2": "KILLED",
    }  # fmt: skip
