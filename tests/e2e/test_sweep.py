"""A tiny sweep through the command line, its driver killed in the middle of two trials, and continued."""

import csv
import json
import time

import mlflow
import numpy as np
import pytest
from ray import tune

from ray_kplm.config import load_config
from ray_kplm.errors import RunError

DEADLINE_S = 600
TINY = [
    "stage1.rounds=1", "stage1.warmup_iterations=20", "stage1.round_iterations=20", "stage2.iterations=20",
    "compute.checkpoint_iterations=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def arguments(small, folder):
    """Three trials, compared after their round: the first that comes there goes on, the others if they are good enough."""
    sweep = [folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={folder / 'sweep'}", *small, *TINY]
    over = ["--over", "stage1.learning_rate=1e-9,5e-4,1e-3", "--asha"]
    return ["sweep", *sweep, *over, "--json"]


def known_to_tune(sweep):
    """How many trials Tune will continue with."""
    states = sorted((sweep / "tune").glob("experiment_state-*.json"))
    try:
        return len(json.loads(states[-1].read_text())["trial_data"]) if states else 0
    except json.JSONDecodeError:  # being written
        return 0


def run_directories(sweep):
    return sorted(path.name for path in sweep.glob("0*") if (path / "config.yaml").exists())


def manifests(sweep):
    return {path: path.stat().st_mtime_ns for path in sweep.glob("0*/**/manifest.json")}


@pytest.mark.slow
def test_a_killed_sweep_continues_to_the_same_end(kplm, finish, arguments, folder):
    sweep = folder / "sweep"
    process = kplm(*arguments, "--max-concurrent", 2, start_new_session=True)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (list(sweep.glob("0*/rounds/000/train/manifest.json")) and known_to_tune(sweep) > 1):
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < deadline, "no warm-up was finished"
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate(timeout=60)
    done, began = manifests(sweep), run_directories(sweep)
    assert len(began) == 2
    assert not (sweep / "results.json").exists(), "a trial ended already"
    runs = {name: (sweep / name / "mlflow.json").read_text() for name in began}

    out, err = finish(*arguments, "--max-concurrent", 1)
    assert "continues; 0 of 3 trials done" in err
    results = json.loads(out)
    ended = results["trials"]
    assert [trial["name"] for trial in ended] == run_directories(sweep)
    assert began == [trial["name"] for trial in ended[:2]]
    kept = {path: time for path, time in done.items() if "features" not in path.parts}
    assert kept.items() <= manifests(sweep).items(), "a finished step ran again"
    states = [trial["state"] for trial in ended]
    at_rung = [trial["reports"]["1"] for trial in ended]
    assert states[at_rung.index(min(at_rung))] == "finished"
    best_third = np.percentile(at_rung[:2], 100 / 3)  # of the others, which came before
    assert states[2] == ("stopped" if at_rung[2] > best_third else "finished")
    for trial in ended:
        assert (sweep / trial["name"] / "stage2" / "manifest.json").exists() == (trial["state"] == "finished")

    found = list((sweep / "keypoints").glob("*/keypoints/manifest.json"))
    assert len(found) == 1, "generic keypoints were found more than once"
    for trial in ended:
        assert (sweep / trial["name"] / "keypoints" / "manifest.json").read_bytes() == found[0].read_bytes()

    assert results["best"]["objective"] == min(t["objective"] for t in results["trials"] if t["state"] == "finished")
    assert [row["state"] for row in csv.DictReader((sweep / "results.csv").open())] == states
    assert "<polyline" in (sweep / "index.html").read_text()
    best = load_config(sweep / "best.yaml")
    assert best.stage1.learning_rate == results["best"]["values"]["stage1.learning_rate"]
    scores = json.loads((sweep / results["best"]["name"] / "evaluation" / "metrics.json").read_text())
    assert scores["forward_nme"] == results["best"]["objective"]

    grid = tune.ResultGrid(tune.ExperimentAnalysis(str(sweep / "tune"), default_metric="objective", default_mode="min"))
    assert grid.num_terminated == 3
    assert grid.get_best_result().metrics["objective"] == min(t["objective"] or t["reports"]["1"] for t in ended)

    check_mlflow(sweep, ended, runs)

    assert "3 of 3 trials done" in err
    out, _ = finish(*arguments)  # without a Ray
    assert json.loads(out) == results, "a finished sweep changed"
    out, _ = finish(*[word for word in arguments if word != "--json"])
    assert out.startswith("trial  learning_rate"), out[:300]
    out, _ = finish("train", sweep / "best.yaml")
    assert "was finished before" in out
    process = kplm(*arguments, "--seed", 1)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == RunError.exit_code
    assert "is another sweep: --seed was 0, is 1" in err


def check_mlflow(sweep, ended, runs):
    """One parent; its children are the trials, with their objective; what went on after the kill went on in the same run."""
    parent = json.loads((sweep / "mlflow.json").read_text())
    client = mlflow.MlflowClient(tracking_uri=parent["tracking_uri"])
    experiment = client.get_run(parent["run_id"]).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent['run_id']}'")
    by_name = {child.info.run_name: child for child in children}
    assert set(by_name) == {trial["name"] for trial in ended}
    for trial in ended:
        child = by_name[trial["name"]]
        assert child.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[trial["state"]]
        assert child.data.metrics["sweep/forward_nme"] == pytest.approx(trial["reports"]["1"])
    for name, before in runs.items():
        assert json.loads(before)["run_id"] == by_name[name].info.run_id
    assert client.get_run(parent["run_id"]).info.status == "FINISHED"
