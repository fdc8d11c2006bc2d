"""Tracking with a real `mlflow server` that is killed and restarted during a run."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import mlflow
import numpy as np
import pytest

from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.run import Run
from ray_kplm.tracking import add_evaluation, add_picture, send_pending, track_group, track_run
from ray_kplm.tracking.store import MlflowRun

DATASET = {"name": "cats"}


@pytest.fixture(autouse=True)
def store(run, server, monkeypatch):
    """The run is tracked by the server, which is up."""
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


LOAD = """
import json, sys
import mlflow
import numpy as np

images = np.load(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(images)
one_by_one = model.get_raw_model().predict(list(images))
assert "ray" not in sys.modules
print(json.dumps([found["xy"].tolist(), found["confidence"].tolist(), [p.xy.tolist() for p in one_by_one]]))
"""


def test_a_run_is_complete_on_the_server_and_its_model_needs_nothing_else(
    run, server, finish, images, stored, curve, client, tmp_path
):
    with track_run(run, DATASET) as tracker:
        for step in range(10, 2_010, 10):
            tracker.log_metrics({"stage1/loss": 1 / step, "stage1/detector": 2 / step}, step)
        finish(run)
        tracker.log_model(run)
    assert tracker.uri == server.uri
    found = stored(run)
    assert found.info.status == "FINISHED"
    assert found.data.params["network.width"] == "32"
    assert curve(run, "stage1/loss") == [(step, 1 / step) for step in range(10, 2_010, 10)]
    paths = {artifact.path for artifact in client(run).list_artifacts(tracker.run_id)}
    assert {"config.yaml", "environment.txt", "versions.json"} <= paths

    (output,) = found.outputs.model_outputs
    assert output.step == 2_000
    expected = LandmarkDetector.load(run.folder.path, device="cpu").predict(list(images))
    run.folder.delete()
    info = mlflow.models.get_model_info(f"models:/{output.model_id}")
    (takes,) = info.signature.inputs.inputs
    assert (takes.type, takes.shape) == (np.uint8, (-1, -1, -1, 3))
    assert [spec["name"] for spec in info.signature.outputs.to_dict()] == ["xy", "confidence"]
    np.save(tmp_path / "images.npy", images)
    for uri in (f"models:/{output.model_id}", f"runs:/{tracker.run_id}/landmarks"):
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD, uri, tmp_path / "images.npy"], capture_output=True, text=True, timeout=240
        )
        assert loaded.returncode == 0, loaded.stderr[-2000:]
        xy, confidence, raw = json.loads(loaded.stdout.splitlines()[-1])
        np.testing.assert_allclose(xy, [one.xy for one in expected], atol=1e-3)
        np.testing.assert_allclose(confidence, [one.confidence for one in expected], atol=1e-5)
        assert raw == xy


def test_a_server_killed_in_the_middle_gets_every_number_once(run, server, stored, curve, capsys):
    with track_run(run, DATASET) as tracker:
        tracker.log_metrics({"loss": 1.0}, 10)
        until(lambda: curve(run, "loss"))
        server.kill()
        for step in range(20, 3_000, 10):
            tracker.log_metrics({"loss": 1 / step}, step)
        until(lambda: run.folder.exists("tracking/metrics") and "does not answer" in capsys.readouterr().err)
        for step in range(3_000, 4_000, 10):
            tracker.log_metrics({"loss": 1 / step}, step)
        server.start()
        until(lambda: len(curve(run, "loss")) == 399)
    assert [step for step, _ in curve(run, "loss")] == list(range(10, 4_000, 10))
    assert stored(run).info.status == "FINISHED"
    assert not run.folder.exists("tracking")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "MLflow" in line] == [
        f"kplm: MLflow at {server.uri} answers again: everything that was kept is sent"
    ]
    until(lambda: not any(name.startswith("MLFLOW_HTTP") for name in os.environ))  # a stopped test may still send


def test_a_run_that_ended_without_its_server_is_completed_later(
    run, server, finish, images, stored, curve, client, capsys
):
    with track_run(run, DATASET) as tracker:
        for step in (10, 20, 30):
            tracker.log_metrics({"loss": 1 / step}, step)
    server.kill()
    with track_run(run, DATASET) as again:  # from a checkpoint at 15
        assert again.run_id == tracker.run_id
        for step in (20, 30, 40):
            again.log_metrics({"loss": 2 / step}, step)
        again.log_file("evaluation/test.png", b"png")
        finish(run)
        again.log_model(run)
    ended = time.time_ns() // 1_000_000
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"kplm: MLflow at {server.uri} does not answer (")
    assert "the model, the final status of" in said[1]
    assert (Path(run.folder.path) / "tracking" / "model" / "network.pt").exists()

    add_evaluation(run, {"forward_nme": 4.2})  # the server is still away
    assert "does not answer" in capsys.readouterr().err

    server.start()
    send_pending(run, DATASET)
    found = stored(run)
    assert (found.info.status, found.info.run_id) == ("FINISHED", tracker.run_id)
    assert found.info.end_time <= ended
    assert curve(run, "loss") == [(10, 1 / 10), (20, 1 / 20), (30, 1 / 30), (40, 2 / 40)]
    assert curve(run, "evaluation/forward_nme") == [(40, 4.2)]
    assert len(found.outputs.model_outputs) == 1
    assert [a.path for a in client(run).list_artifacts(tracker.run_id, "evaluation")] == ["evaluation/test.png"]
    assert not run.folder.exists("tracking")
    send_pending(run, DATASET)
    assert len(stored(run).outputs.model_outputs) == 1


def test_a_user_who_stops_a_run_does_not_wait_for_a_server_that_hangs(run, server, stored, curve, capsys):
    def stopped():
        with track_run(run, DATASET) as tracker:
            tracker.log_metrics({"loss": 1.0}, 10)
            until(lambda: curve(run, "loss"))
            stack.enter_context(server.hanging())
            tracker.log_metrics({"loss": 0.5}, 20)
            raise KeyboardInterrupt

    with ExitStack() as stack, pytest.raises(KeyboardInterrupt):
        stopped()
    assert re.search("has not received 1 number, .*the final status of", capsys.readouterr().err)
    add_evaluation(run, {"forward_nme": 4.2})
    assert stored(run).info.status == "KILLED"
    assert curve(run, "loss") == [(10, 1.0), (20, 0.5)]
    assert not run.folder.exists("tracking")


def test_children_started_while_the_server_is_down_are_created_later(run, server, stored, curve):
    group = Run(run.folder / "group", run.config)
    with track_group(group.folder, DATASET, {}) as parent:
        pass
    server.kill()
    with track_run(run, DATASET, parent.parent) as tracker:
        assert tracker.run_id == ""
        tracker.log_metrics({"loss": 1.0}, 10)
    server.start()
    with track_run(run, DATASET) as again:
        again.log_metrics({"loss": 0.5}, 10)
        again.log_metrics({"loss": 0.5}, 20)
    assert curve(run, "loss") == [(10, 1.0), (20, 0.5)]
    assert stored(run).data.tags["mlflow.parentRunId"] == parent.run_id


def test_a_lost_response_leads_to_no_second_point(run, curve, monkeypatch):
    """The server took the request, and the connection broke before it could say so."""
    taken = MlflowRun.log_metrics

    def broken(self, points):
        before = dict(self._last)
        taken(self, points)
        self._last = before
        monkeypatch.setattr(MlflowRun, "log_metrics", taken)
        raise ConnectionError("lost")

    monkeypatch.setattr(MlflowRun, "log_metrics", broken)
    with track_run(run, DATASET) as tracker:
        tracker.log_metrics({"loss": 1.0}, 10)
        until(lambda: MlflowRun.log_metrics is taken)
        tracker.log_metrics({"loss": 0.5}, 20)
    assert curve(run, "loss") == [(10, 1.0), (20, 0.5)]


def test_a_copy_on_a_server_leaves_the_run_of_the_original(run, stored, curve, client, tmp_path, capsys):
    with track_run(run, DATASET) as tracker:
        tracker.log_metrics({"loss": 1.0}, 10)
        tracker.log_file("evaluation/test.png", b"of the original")
    shutil.copytree(run.folder.path, tmp_path / "copy")
    copy = Run.open(str(tmp_path / "copy"))
    capsys.readouterr()
    add_evaluation(copy, {"forward_nme": 4.2})
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a copy of" in line
    add_picture(copy, b"of the copy", "test.png")
    assert stored(copy).data.tags["kplm.copied_from"] == tracker.run_id
    assert stored(copy).info.status == "FINISHED"
    assert stored(copy).data.params == stored(run).data.params
    assert curve(copy, "loss") == curve(run, "loss") == [(10, 1.0)]
    assert curve(copy, "evaluation/forward_nme") == [(10, 4.2)]
    assert curve(run, "evaluation/forward_nme") == []
    for one, content in ((run, b"of the original"), (copy, b"of the copy")):
        run_id = one.folder.read_json("mlflow.json")["run_id"]
        path = client(one).download_artifacts(run_id, "evaluation/test.png", str(tmp_path))
        assert Path(path).read_bytes() == content
    with track_run(copy, DATASET) as again:
        assert again.run_id not in ("", tracker.run_id)
        again.log_metrics({"loss": 0.5}, 20)
    assert curve(copy, "loss") == [(10, 1.0), (20, 0.5)]
    assert curve(run, "loss") == [(10, 1.0)]
