"""What a run takes over from its siblings, and what an interruption or a sibling's own work must not spoil."""

import pytest

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.experiments.objective import AUTO, FORWARD_NME, LABEL_FREE, choose_objective
from ray_kplm.run import Run
from ray_kplm.steps.fork import fork_best
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import CheckedFolder


def write_dataset(root, *, landmarks=14, test=3):
    """The manifest of a dataset of a part a split; its images are not looked at."""
    splits = {"train": {"parts": ["part-00000.parquet"], "rows": [9], "images": 9}}
    if test:
        splits["test"] = {"parts": ["part-00000.parquet"], "rows": [test], "images": test}
    manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": landmarks, "splits": splits}
    Folder.at(root).write_json("manifest.json", manifest)
    Folder.at(root).write_json("dataset.json", {"name": "cats"})
    return Dataset.open(root)


@pytest.fixture
def begin(tmp_path):
    """A run of some rounds, of which the first steps are finished."""
    write_dataset(tmp_path / "dataset")

    def make(name, steps, *changes):
        config = load_config(
            None,
            [
                f"dataset={tmp_path / 'dataset'}",
                f"run={tmp_path / name}",
                "stage1.rounds=1",
                "method.mirror=partners",
                *changes,
            ],
        )
        run = Run.start(config)
        if steps:
            run.save()
        for task in record(run, Dataset.open(config.dataset)).tasks[:steps]:
            step = task.step
            step.begin()
            step.folder.write_bytes("part-00000.parquet", step.folder.path.encode())
            step.finish()
            if step.name == "correspond":
                step.folder.parent.write_bytes("clusters.npz", b"")
        return run

    return make


def test_the_sibling_that_has_most_in_common_is_taken(begin):
    one, two = begin("one", 2), begin("two", 4, "method.clusters=50")  # clusters matter from the fourth step on
    begin("far", 9, "seed=1")
    target = begin("new", 0)
    assert fork_best([one, two], target.config) == ["keypoints", "rounds/000/train", "rounds/000/features"]
    assert (target.folder / "keypoints").read_bytes("part-00000.parquet").endswith(b"two/keypoints")
    assert target.folder.is_file("config.yaml")


def test_a_fork_that_was_interrupted_begins_anew(begin, monkeypatch):
    source, target = begin("one", 4), begin("new", 0)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fork_best([source], target.config)
    assert target.folder.folders() == ["keypoints", "rounds"]
    assert len(fork_best([source], target.config)) == 4
    assert target.folder.is_file("config.yaml")


def test_a_users_folder_is_not_taken_for_an_interrupted_fork(begin):
    source, target = begin("one", 1), begin("new", 0)
    (target.folder / "photos").write_bytes("me.jpg", b"")
    with pytest.raises(RunError, match="is not empty and no run directory"):
        fork_best([source], target.config)
    assert (target.folder / "photos").is_file("me.jpg")


def test_features_that_are_deleted_while_they_are_copied_are_left_out(begin, monkeypatch):
    source, target = begin("one", 4), begin("new", 0)

    read = CheckedFolder.read_bytes

    def delete_and_read(folder, name):
        if folder.name == "features":
            folder.unchecked.delete()  # the source's own process: they are clustered
        return read(folder, name)

    monkeypatch.setattr(CheckedFolder, "read_bytes", delete_and_read)
    taken = fork_best([source], target.config)
    assert taken == ["keypoints", "rounds/000/train", "rounds/000/labels"]
    assert (target.folder / "rounds" / "000").is_file("clusters.npz")
    assert target.manifest("rounds/000/features") is None


def test_the_objective_is_what_the_dataset_allows(tmp_path):
    annotated = write_dataset(tmp_path / "a")
    plain = write_dataset(tmp_path / "b", landmarks=0)
    untested = write_dataset(tmp_path / "c", test=0)
    assert choose_objective(AUTO, annotated) == FORWARD_NME
    assert choose_objective(AUTO, plain) == choose_objective(AUTO, untested) == LABEL_FREE
    assert choose_objective(LABEL_FREE, annotated) == LABEL_FREE
    with pytest.raises(ConfigError, match="has no annotated test images; take label_free"):
        choose_objective(FORWARD_NME, untested)
