"""Scores, pictures and reports are added to an ended run, whose status and times are kept."""

import time

import mlflow
import numpy as np
import pytest

from ray_kplm.tracking import add_evaluation, add_picture, add_report, audit, send_pending, track_run
from ray_kplm.tracking.model import example_images

DATASET = {"name": "cats"}


@pytest.fixture
def ended(run):
    """A run that failed after 40 iterations."""

    def work():
        with track_run(run, DATASET) as tracker:
            tracker.log_metrics({"loss": 0.5}, 40)
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        work()
    return run


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def artifacts(client, run, folder):
    return [a.path for a in client(run).list_artifacts(run.folder.read_json("mlflow.json")["run_id"], folder)]


def test_scores_pictures_and_reports_keep_the_status_and_times_of_a_run(ended, client, stored, curve):
    before = stored(ended).info
    (ended.folder / "evaluation").write_bytes("curves.png", b"png")
    add_evaluation(
        ended, {"forward_nme": 4.2, "pck": {"0.3": 80, "by box": 1.5}, "seconds": 3.0, "none": None, "each": [1]}
    )
    add_picture(ended, b"png", "test.png")
    (ended.folder / "report").write_bytes("index.html", b"<html>")
    (ended.folder / "report" / "data").write_bytes("a.json", b"{}")
    add_report(ended)
    add_report(ended, f"{ended.folder}/report/index.html")
    found = stored(ended)
    assert (found.info.status, found.info.end_time) == ("FAILED", before.end_time)
    scores = {name: value for name, value in found.data.metrics.items() if name.startswith("evaluation/")}
    assert scores == {"evaluation/forward_nme": 4.2, "evaluation/pck/0.3": 80, "evaluation/pck/by box": 1.5}
    assert curve(ended, "evaluation/forward_nme") == [(40, 4.2)]
    assert artifacts(client, ended, "evaluation") == ["evaluation/curves.png", "evaluation/test.png"]
    assert artifacts(client, ended, "report") == ["report/data", "report/index.html"]
    assert not ended.folder.exists("tracking")


def test_a_second_evaluation_adds_only_the_scores_that_changed(ended, stored, curve):
    add_evaluation(ended, {"forward_nme": 4.2, "backward_nme": 6.0})
    add_evaluation(ended, {"forward_nme": 4.0, "backward_nme": 6.0})
    assert curve(ended, "evaluation/forward_nme") == [(40, 4.2), (40, 4.0)]
    assert curve(ended, "evaluation/backward_nme") == [(40, 6.0)]
    assert stored(ended).data.metrics["evaluation/forward_nme"] == 4.0


def test_nothing_is_added_to_a_run_that_was_never_tracked(run):
    add_picture(run, b"png", "test.png")
    assert not run.folder.is_file("mlflow.json")
    assert not run.folder.exists("tracking")


def test_scores_go_to_the_store_of_the_run_not_of_the_environment(ended, place, stored, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    add_evaluation(ended, {"forward_nme": 4.2})
    assert stored(ended).data.metrics["evaluation/forward_nme"] == 4.2
    assert not (tmp_path / "other.db").exists()


def test_nothing_is_added_to_a_run_deleted_in_mlflow(ended, client, capsys):
    identity = ended.folder.read_json("mlflow.json")["run_id"]
    client(ended).delete_run(identity)
    add_picture(ended, b"png", "test.png")
    assert f"MLflow run {identity} is no longer at" in capsys.readouterr().err
    assert not ended.folder.exists("tracking")


def test_send_pending_completes_a_run_killed_after_its_last_step(run, finish, images, stored, monkeypatch):
    left = track_run(run, DATASET)
    left.__enter__().log_metrics({"loss": 0.5}, 10)  # and no more: the model and the end are missing
    until(lambda: stored(run).data.metrics.get("loss"))
    finish(run)
    send_pending(run, DATASET)
    found = stored(run)
    assert found.info.status == "FINISHED"
    (output,) = found.outputs.model_outputs
    assert output.step == 10
    monkeypatch.setenv("MLFLOW_TRACKING_URI", run.folder.read_json("mlflow.json")["tracking_uri"])
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    assert model.predict(images)["xy"].shape == (2, 5, 2)
    np.testing.assert_array_equal(model.input_example, example_images(64))


def test_an_audit_counts_the_mlflow_runs_and_names_repeated_metrics(run, client):
    with track_run(run, {"name": "cats"}) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.log_metrics({"loss": 0.5}, 2)
    assert audit(run) == {"runs": 1, "status": "FINISHED", "repeated": []}
    store, run_id = client(run), run.folder.read_json("mlflow.json")["run_id"]
    store.log_metric(run_id, "loss", 0.7, step=2)
    store.create_run("0", tags={"run_directory": str(run.folder)})  # of another experiment
    assert audit(run) == {"runs": 1, "status": "FINISHED", "repeated": ["loss"]}
    store.create_run(store.get_run(run_id).info.experiment_id, tags={"run_directory": str(run.folder)})
    assert audit(run)["runs"] == 2
