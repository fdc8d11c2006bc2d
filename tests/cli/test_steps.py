"""`kplm steps`: what of a run is done."""

from ray_kplm.cli.main import main
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.run import Run
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder


def test_steps_lists_what_is_done_and_what_each_step_takes(tmp_path, capsys):
    splits = {"train": {"parts": ["part-00000.parquet"], "rows": [9], "images": 9}}
    manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
    Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
    Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "cats"})
    config = load_config(
        "demo",
        [f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}", "stage1.rounds=1", "method.mirror=partners"],
    )
    recording = record(Run.start(config).save(), Dataset.open(config.dataset))
    recording["keypoints"].step.begin()
    recording["keypoints"].step.finish()
    recording["rounds/000/train"].step.begin()
    assert main(["steps", str(tmp_path / "run")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:3] == [["done", "keypoints"], ["begun", "rounds/000/train", "keypoints"]]
    assert lines[-2:] == [
        ["to", "do", "stage2", "rounds/001/labels", "rounds/001/train"],
        ["to", "do", "visibility", "stage2"],
    ]
    assert main(["steps", str(tmp_path / "run"), "--mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD\n")
    assert main(["steps", str(tmp_path / "nothing")]) == 4
