"""A tiny sweep through the command line, its driver killed in the middle of two trials, and continued."""

import csv
import json
import time

import mlflow
import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import RunError

DEADLINE_S = 240
TINY = [
    "stage1.rounds=0", "stage1.warmup_iterations=20", "stage2.iterations=20", "compute.checkpoint_iterations=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def arguments(small, folder):
    """Three trials, compared after the warm-up: the first that comes there goes on, and the others if they are better."""
    sweep = [folder / "empty.yaml", f"dataset={folder / 'dataset'}", f"run={folder / 'sweep'}", *small, *TINY]
    over = ["--over", "stage1.learning_rate=1e-9,5e-4,1e-3", "--asha", "--grace-rounds", "0"]
    return ["sweep", *sweep, *over, "--json"]


def trials(sweep):
    return {path.stem: json.loads(path.read_text()) for path in sorted((sweep / "trials").glob("*.json"))}


def manifests(sweep):
    return {path: path.stat().st_mtime_ns for path in sweep.glob("0*/**/manifest.json")}


def test_a_killed_sweep_continues_to_the_same_end(kplm, finish, arguments, folder):
    sweep = folder / "sweep"
    process = kplm(*arguments, "--max-concurrent", 2, start_new_session=True)
    deadline = time.monotonic() + DEADLINE_S
    while not (list(sweep.glob("0*/rounds/000/train/manifest.json")) and len(trials(sweep)) == 2):
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < deadline, "no warm-up was finished"
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    done, began = manifests(sweep), trials(sweep)
    assert {trial["state"] for trial in began.values()} == {"running"}
    runs = {name: (sweep / trial["name"] / "mlflow.json").read_text() for name, trial in began.items()}

    out, err = finish(*arguments, "--max-concurrent", 1)
    assert "sweep: continues; 0 of 3 trials done" in err
    ended = trials(sweep)
    assert {name: ended[name]["values"] for name in began} == {name: trial["values"] for name, trial in began.items()}
    kept = {path: time for path, time in done.items() if "features" not in path.parts}
    assert kept.items() <= manifests(sweep).items(), "a finished step ran again"
    states = [trial["state"] for trial in ended.values()]
    at_rung = [trial["reports"]["0"] for trial in ended.values()]
    assert states[at_rung.index(min(at_rung))] == "finished"
    assert states[2] == ("finished" if at_rung[2] == min(at_rung) else "stopped"), "it came last: all others were known"
    assert "stopped" in states  # what learns hardly anything keeps its landmarks where keypoints often are
    for trial in ended.values():
        assert (sweep / trial["name"] / "stage2" / "manifest.json").exists() == (trial["state"] == "finished")

    found = list((sweep / "keypoints").glob("*/keypoints/manifest.json"))
    assert len(found) == 1, "generic keypoints were found more than once"
    for trial in ended.values():
        assert (sweep / trial["name"] / "keypoints" / "manifest.json").read_bytes() == found[0].read_bytes()

    results = json.loads(out)
    assert results["best"]["objective"] == min(t["objective"] for t in results["trials"] if t["state"] == "finished")
    assert [row["state"] for row in csv.DictReader((sweep / "results.csv").open())] == states
    assert "<polyline" in (sweep / "index.html").read_text()
    best = load_config(sweep / "best.yaml")
    assert best.stage1.learning_rate == results["best"]["values"]["stage1.learning_rate"]
    scores = json.loads((sweep / results["best"]["name"] / "evaluation" / "metrics.json").read_text())
    assert scores["forward_nme"] == results["best"]["objective"]

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
    assert set(by_name) == {trial["name"] for trial in ended.values()}
    for trial in ended.values():
        child = by_name[trial["name"]]
        assert child.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[trial["state"]]
        assert child.data.metrics["sweep/forward_nme"] == pytest.approx(trial["reports"]["0"])
    for name, before in runs.items():
        assert json.loads(before)["run_id"] == by_name[ended[name]["name"]].info.run_id
    assert client.get_run(parent["run_id"]).info.status == "FINISHED"
