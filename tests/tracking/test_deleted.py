"""What was deleted in MLflow is named with its remedy, and training goes on."""

import pytest

from ray_kplm.tracking import add_picture, track_group, track_run


@pytest.fixture
def dataset(numbers) -> dict:
    """Each test has an experiment of its own."""
    return {"name": f"cats {next(numbers)}"}


def names(client, run) -> dict[str, str]:
    """Experiment of each MLflow run of the store, by the run's id."""
    store = client(run)
    return {
        one.info.run_id: experiment.name
        for experiment in store.search_experiments()
        for one in store.search_runs([experiment.experiment_id])
    }


def test_a_run_goes_on_beside_a_deleted_experiment(run, client, dataset, capsys):
    with track_run(run, dataset) as tracker:
        pass
    experiment = client(run).get_run(tracker.run_id).info.experiment_id
    client(run).delete_experiment(experiment)
    capsys.readouterr()
    with track_run(run, dataset) as again:
        again.log_metrics({"loss": 1.0}, 1)
    (line,) = capsys.readouterr().err.splitlines()
    name = f"kplm {dataset['name']}"
    assert f"MLflow experiment '{name}' was deleted" in line
    assert f"this run is tracked in '{name} (2)'" in line
    assert f"mlflow experiments restore --experiment-id {experiment}" in line
    assert "MLFLOW_TRACKING_URI" not in line
    assert names(client, run)[again.run_id] == f"{name} (2)"
    assert client(run).get_experiment(experiment).lifecycle_stage == "deleted"  # as the user wished
    with track_run(run, dataset) as third:
        assert third.run_id == again.run_id
    assert capsys.readouterr().err == ""


def test_a_group_and_its_children_share_the_next_experiment(run, client, dataset):
    with track_run(run, dataset) as tracker:
        pass
    store = client(run)
    name = f"kplm {dataset['name']}"
    store.delete_experiment(store.get_run(tracker.run_id).info.experiment_id)
    store.delete_experiment(store.create_experiment(f"{name} (2)"))
    with track_group(run.folder.parent, dataset, {}) as group, track_run(run, dataset, group.parent) as child:
        pass
    found = names(client, run)
    assert found[group.run_id] == found[child.run_id] == f"{name} (3)"
    (run.folder.parent).delete_file("mlflow.json")


def test_a_restored_experiment_is_used_again(run, client, dataset):
    with track_run(run, dataset) as tracker:
        pass
    store = client(run)
    experiment = store.get_run(tracker.run_id).info.experiment_id
    store.delete_experiment(experiment)
    store.restore_experiment(experiment)
    with track_run(run, dataset) as again:
        assert again.run_id == tracker.run_id


def test_what_is_added_to_a_deleted_run_says_how_it_is_brought_back(run, client, dataset, capsys):
    with track_run(run, dataset) as tracker:
        pass
    client(run).delete_run(tracker.run_id)
    capsys.readouterr()
    add_picture(run, b"png", "test.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert f"`mlflow runs restore --run-id {tracker.run_id}`" in line
    assert "MLFLOW_TRACKING_URI" not in line
    client(run).restore_run(tracker.run_id)
    add_picture(run, b"png", "test.png")
    assert capsys.readouterr().err == ""
    assert [a.path for a in client(run).list_artifacts(tracker.run_id, "evaluation")] == ["evaluation/test.png"]
