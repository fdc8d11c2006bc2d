"""What is asked of the store after a run: that there is one MLflow run of it, and no step twice."""

from ray_kplm.tracking import audit, tracked


def test_one_run_without_repeats(run, client):
    with tracked(run, {"name": "cats"}) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        tracker.metrics({"loss": 0.5}, 2)
    assert audit(run) == {"runs": 1, "status": "FINISHED", "repeated": []}
    store, run_id = client(run), run.folder.read_json("mlflow.json")["run_id"]
    store.log_metric(run_id, "loss", 0.7, step=2)
    store.create_run("0", tags={"run_directory": str(run.folder)})  # of another experiment
    assert audit(run) == {"runs": 1, "status": "FINISHED", "repeated": ["loss"]}
    store.create_run(store.get_run(run_id).info.experiment_id, tags={"run_directory": str(run.folder)})
    assert audit(run)["runs"] == 2
