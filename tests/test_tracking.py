"""MLflow: one run for a run directory, whatever happens on the way, and no step twice."""

import pytest

from ray_kplm.config import load
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking import add_picture, grouped, tracked


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = Run.start(load(None, [f"run={tmp_path / 'runs' / 'one'}", "seed=7"]))
    run.save()
    return run


def client(run):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=run.folder.read_json("mlflow.json")["tracking_uri"])


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_without_repeating_a_step(run, tmp_path):
    def interrupted():
        with tracked(run, {"name": "cats"}) as tracker:
            tracker.metrics({"loss": 0.5}, 10)
            tracker.metrics({"loss": 0.4}, 20)
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        interrupted()
    first = run.folder.read_json("mlflow.json")["run_id"]
    assert client(run).get_run(first).info.status == "FAILED"
    with tracked(run, {"name": "cats"}) as tracker:
        assert tracker.run_id == first
        tracker.metrics({"loss": 0.41}, 20)  # repeated after the resume
        tracker.metrics({"loss": 0.3}, 30)
    stored = client(run).get_run(first)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["seed"] == "7"
    assert stored.data.params["method.landmarks"] == "30"
    history = [(m.step, m.value) for m in client(run).get_metric_history(first, "loss")]
    assert history == [(10, 0.5), (20, 0.4), (30, 0.3)]
    assert client(run).get_experiment(stored.info.experiment_id).name == "kplm cats"
    assert (tmp_path / "runs" / "mlflow.db").exists()


def test_a_stopped_run_is_killed(run):
    def stopped():
        with tracked(run, {}):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    identity = run.folder.read_json("mlflow.json")["run_id"]
    assert client(run).get_run(identity).info.status == "KILLED"


def test_pictures_are_artifacts(run):
    with tracked(run, {"name": "cats"}):
        pass
    add_picture(run, b"\x89PNG", "test.png")
    identity = run.folder.read_json("mlflow.json")["run_id"]
    assert [a.path for a in client(run).list_artifacts(identity)] == ["test.png"]
    assert client(run).get_run(identity).info.status == "FINISHED"


def test_the_users_own_server_is_respected(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    with tracked(run, {"name": "cats"}) as tracker:
        assert tracker.uri.endswith("elsewhere.db")
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_runs_of_a_group_are_children_of_one_parent(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = Folder.at(tmp_path / "ablation")
    runs = [Run.start(load(None, [f"run={folder.path}/seed={seed}", f"seed={seed}"])) for seed in (0, 1)]
    with grouped(folder, {"name": "cats"}, {"over": "seed"}) as group:
        for run in runs:
            with tracked(run, {"name": "cats"}, group.parent):
                pass
    with grouped(folder, {"name": "cats"}, {"over": "seed"}) as again:
        assert again.run_id == group.run_id
    assert (tmp_path / "ablation" / "mlflow.db").exists()
    parent = client(runs[0]).get_run(group.run_id)
    assert (parent.info.run_name, parent.data.params) == ("ablation", {"over": "seed"})
    filter_string = f"tags.`mlflow.parentRunId` = '{group.run_id}'"
    children = client(runs[0]).search_runs([parent.info.experiment_id], filter_string)
    assert sorted(child.info.run_name for child in children) == ["seed=0", "seed=1"]
