"""What is recorded from a method's page: the order, what each task takes and reads, and which images the rounds see."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.run import Run
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder

# 40 views of the warm-up, 32 of each of two rounds, 96 of stage 2.
UNEQUAL = [
    "stage1.batch_size=4", "stage1.warmup_iterations=10", "stage1.rounds=2", "stage1.round_iterations=4",
    "stage2.batch_size=4", "stage2.iterations=24",
]  # fmt: skip


@pytest.fixture
def recorded(tmp_path):
    """The recorded tasks of a run on a dataset of some parts, whose images are not looked at."""

    def make(images, *changes, part_images=10):
        rows = [part_images] * (images // part_images)
        parts = [f"part-{i:05d}.parquet" for i in range(len(rows))]
        splits = {"train": {"parts": parts, "rows": rows, "images": images}}
        manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
        Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
        Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "cats"})
        config = load_config(None, [f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}", *UNEQUAL, *changes])
        return record(Run.start(config), Dataset.open(config.dataset))

    return make


def seen(recording, number):
    selection = recording["keypoints"].context.selection(number)
    return [(part, int(row)) for part, rows in zip(selection.parts, selection.rows, strict=True) for row in rows]


def test_no_image_comes_twice_before_all_were_seen_whatever_the_sizes(recorded):
    run = recorded(200)
    assert [run["keypoints"].context.image_count(number) for number in range(4)] == [40, 32, 32, 96]
    images = [image for number in range(4) for image in seen(run, number)]
    assert len(images) == len(set(images)) == 200


def test_all_images_are_drawn_in_every_round_of_a_small_dataset(recorded):
    run = recorded(30)
    whole = [(f"part-{part:05d}.parquet", row) for part in range(3) for row in range(10)]
    assert [seen(run, number) for number in range(4)] == [whole] * 4
    assert all("images_before" not in task.step.reads for task in run)


def test_a_step_whose_images_change_has_another_fingerprint(recorded):
    """A longer warm-up moves the images of round 1, and by them nothing else that round 1's training reads."""
    short, longer = recorded(200), recorded(200, "stage1.warmup_iterations=11")
    assert seen(short, 1) != seen(longer, 1)
    assert short["rounds/001/train"].step.reads["images_before"] == 40
    assert longer["rounds/001/train"].step.reads["images_before"] == 44
    assert short["rounds/000/features"].step.reads["images_before"] == 40


def test_rounds_of_one_size_are_known_by_their_number(recorded):
    """As they were before the sizes counted: such runs continue."""
    run = recorded(200, "round_images=30")
    assert all("images_before" not in task.step.reads for task in run)
    images = np.array([sorted(seen(run, number)) for number in range(4)])
    assert len(np.unique(images.reshape(-1, 2), axis=0)) == 120


def test_a_selection_of_a_large_dataset_is_made_of_few_parts(recorded):
    run = recorded(10_000_000, "round_images=1000", part_images=500)
    assert len(run["keypoints"].context.selection(3).parts) <= 4


BEFORE = ["method.mirror=partners", "method.drop_static=no", "detection.inside_box=false", "augment.paste=0"]
"""What runs did before these keys existed, or had other defaults."""
DATASET = SimpleNamespace(
    fingerprint="d", count=lambda split: 60, parts=lambda split: ["part-00000.parquet"], rows=lambda split: [60]
)


def recording_of(folder, kind: str, *overrides: str):
    config = load_config(None, [f"run={folder}", f"method.kind={kind}", "stage1.rounds=1", *overrides])
    return record(Run.start(config), DATASET)


def fingerprints(folder, kind: str, *overrides: str) -> dict[str, str]:
    return {task.path: task.fingerprint for task in recording_of(folder, kind, *overrides)}


@pytest.mark.parametrize(
    ("kind", "override", "first"),
    [
        ("kplm", "features=aliked", "facing"),
        ("kplm", "method.mirror=facing", "facing"),
        ("merge", "keypoints.scales=[1.0, 1.3]", "keypoints"),
        ("kplm", "stage1.decay=cosine", "rounds/000/train"),
        ("template", "stage1.decay=cosine", "rounds/000/train"),
        ("template", "stage2.decay_at=[0.5]", "stage2/000/train"),
        ("template", "template.sample=50", "template/labels"),
        ("merge", "detection.inside_box=false", "rounds/000/features"),
    ],
)
def test_an_option_changes_the_first_step_that_reads_it_and_all_that_follow(tmp_path, kind, override, first):
    before, after = fingerprints(tmp_path, kind), fingerprints(tmp_path, kind, override)
    changed = [before[path] != after[path] for path in before]
    place = list(before).index(first)
    assert changed == [False] * place + [True] * (len(before) - place)


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["features_share=0.3"], False),  # with HOG nothing is blended
        (["features=aliked", "features_share=0"], False),
        (["features=aliked"], True),
    ],
)
def test_an_extraction_reads_the_frozen_features_where_they_are_blended(tmp_path, overrides, changed):
    before, after = (fingerprints(tmp_path, "kplm", "method.mirror=partners", *options) for options in ([], overrides))
    assert before["rounds/000/train"] == after["rounds/000/train"]
    assert (before["rounds/000/features"] != after["rounds/000/features"]) == changed


def test_the_last_extraction_does_not_read_frozen_features(tmp_path):
    recording = recording_of(tmp_path, "kplm", "features=aliked")
    reads = [recording[f"rounds/{round:03d}/features"].step.reads for round in range(2)]
    assert reads[0]["frozen"] == {"features": "aliked", "share": 0.5}
    assert "frozen" not in reads[1]


TAKES = {
    "kplm": [
        "rounds/000/train <- keypoints facing",
        "rounds/000/features <- rounds/000/train facing",
        "rounds/000/labels <- rounds/000/features",
        "rounds/001/train <- rounds/000/labels rounds/000/train facing",
        "rounds/001/features <- rounds/001/train facing",
        "rounds/001/labels <- rounds/001/features",
        "stage2 <- rounds/001/labels rounds/001/train facing",
        "visibility <- stage2 facing",
    ],
    "merge": [
        "keypoints/clustered/labels <- keypoints",
        "rounds/000/train <- keypoints/clustered/labels",
        "rounds/000/features <- rounds/000/train",
        "rounds/000/labels <- rounds/000/features",
        "rounds/001/train <- rounds/000/labels rounds/000/train",
        "rounds/001/features <- rounds/001/train rounds/000/labels",
        "rounds/001/labels <- rounds/001/features rounds/000/labels",
        "stage2/000/train <- rounds/001/labels rounds/001/train",
        "stage2/000/merge <- stage2/000/train",
        "stage2 <- rounds/001/labels stage2/000/merge",
        "visibility <- stage2",
    ],
    "template": [
        "rounds/000/train <- keypoints",
        "rounds/000/labels <- rounds/000/train",
        "rounds/001/train <- rounds/000/labels",
        "rounds/001/labels <- rounds/001/train",
        "template/labels <- rounds/001/labels",
        "stage2/000/train <- template/labels",
        "stage2/000/labels <- stage2/000/train",
        "stage2 <- stage2/000/labels",
        "visibility <- stage2",
    ],
}


@pytest.mark.parametrize(("kind", "expected"), TAKES.items())
def test_a_page_says_what_each_step_takes(tmp_path, kind, expected):
    recording = recording_of(tmp_path, kind, "template.rounds=2", "stage2.iterations=20", "merging.every=10")
    found = [f"{task.path} <- {' '.join(taken.path for taken in task.takes)}" for task in recording if task.takes]
    assert found == expected
    assert recording.tasks[0].path == "keypoints"


@pytest.mark.parametrize(
    ("mirror", "searched"), [("auto", True), ("facing", True), ("partners", False), ("none", False)]
)
def test_the_facing_is_searched_for_unless_the_configuration_says_what_a_mirror_image_is(tmp_path, mirror, searched):
    recording = recording_of(tmp_path, "kplm", f"method.mirror={mirror}")
    assert ("facing" in [task.path for task in recording]) == searched
    takers = [task.path for task in recording if any(taken.path == "facing" for taken in task.takes)]
    taking = ["rounds/000/train", "rounds/000/features", "rounds/001/train", "rounds/001/features", "stage2"]
    taking.append("visibility")
    assert takers == (taking if searched else [])


@pytest.mark.parametrize("kind", ["merge", "template"])
def test_methods_without_landmarks_in_mirror_images_search_for_no_facing(tmp_path, kind):
    assert "facing" not in [task.path for task in recording_of(tmp_path, kind, "method.mirror=facing")]


def test_a_joint_head_comes_from_the_last_network_and_the_labels_it_was_trained_on(tmp_path):
    recording = recording_of(tmp_path, "kplm", "stage2.training=joint")
    assert [taken.path for taken in recording["stage2"].takes] == ["rounds/001/train", "rounds/000/labels"]
    assert recording["rounds/001/labels"].previous is recording["rounds/000/labels"]
    assert recording["rounds/000/labels"].previous is None


@pytest.mark.parametrize(
    ("kind", "overrides", "last"),
    [
        ("kplm", [], "a390332b93fb"),
        ("kplm", ["stage2.training=joint"], "31da6b4df672"),
        ("merge", [], "39fcde4d600b"),
        ("template", [], "3eaab36098a7"),
    ],
)
def test_fingerprints_are_those_of_runs_on_storage(tmp_path, kind, overrides, last):
    """Of version 0.1.0: where one changes, runs that were begun before cannot be continued. It covers all steps before it."""
    assert fingerprints(tmp_path, kind, *BEFORE, *overrides)["stage2"][:12] == last


def test_a_run_on_storage_continues_under_the_defaults_of_today(tmp_path):
    run = Run.start(load_config(None, [f"run={tmp_path}", "stage1.rounds=1"]))
    tree = run.save().config.to_dict()
    del tree["method"]["mirror"], tree["detection"]["inside_box"], tree["augment"]["paste"]
    tree["method"] |= {"flip": True, "flip_map": "pairs", "drop_static": False}
    run.folder.write_bytes("config.yaml", yaml.safe_dump(tree).encode())
    assert fingerprints(tmp_path, "kplm")["stage2"][:12] == "a390332b93fb"


def test_rounds_have_landmarks_where_they_end_with_clusters(tmp_path):
    kinds = {kind: recording_of(tmp_path, kind) for kind in TAKES}
    assert {kind: recording.has_clusters for kind, recording in kinds.items()} == {
        "kplm": True,
        "merge": True,
        "template": False,
    }
    assert not kinds["kplm"].keeps_cluster_numbers
    assert kinds["merge"].keeps_cluster_numbers
    assert recording_of(tmp_path, "kplm", "stage2.training=joint").keeps_cluster_numbers


def test_the_picture_shows_what_is_taken_and_what_is_done(tmp_path):
    recording = recording_of(tmp_path, "kplm", "method.mirror=partners")
    recording["keypoints"].step.begin()
    recording["keypoints"].step.finish()
    lines = [line.strip() for line in recording.picture().splitlines()]
    assert lines[0] == "flowchart TD"
    assert 't0["keypoints"]:::done' in lines
    assert 't1["rounds/000/train"]' in lines
    assert "t0 --> t1" in lines
    assert sum("-->" in line for line in lines) == sum(len(task.takes) for task in recording)


def test_an_output_that_no_step_needs_any_more_is_deleted_and_not_to_do(tmp_path):
    recording = recording_of(tmp_path, "kplm")
    features = recording["rounds/000/features"]
    assert recording.state(features) == "to do"
    recording["rounds/000/labels"].step.begin()
    assert recording.state(features) == "to do"
    recording["rounds/000/labels"].step.finish()
    assert recording.state(features) == "deleted"
    assert recording.state(recording["rounds/000/train"]) == "to do"


TOY = '''
from ray_kplm.methods.kplm import Kplm

def discover_landmarks(step):
    """One round, and stage 2 from scratch."""
    labels = step.detect_keypoints()
    network = step.train(0, labels)
    labels = step.cluster(0, step.extract_features(0, network))
    return step.train_landmarks(labels)

class Toy(Kplm):
    def discover_landmarks(self, step):
        return discover_landmarks(step)

def build(config):
    return Toy(config)
'''


def test_a_new_method_is_one_module_and_its_name(tmp_path, monkeypatch):
    module = ModuleType("ray_kplm.methods.toy")
    exec(TOY, module.__dict__)
    monkeypatch.setitem(sys.modules, "ray_kplm.methods.toy", module)
    config = load_config(None, [f"run={tmp_path}"])
    run = Run.start(replace(config, method=replace(config.method, kind="toy")))
    recording = record(run, DATASET)
    assert [task.path for task in recording] == [
        "keypoints",
        "rounds/000/train",
        "rounds/000/features",
        "rounds/000/labels",
        "stage2",
    ]
    assert not recording.is_finished()
    assert recording.weights().keys() == {task.folder.path for task in recording}


def test_a_run_is_finished_as_long_as_its_detector_and_its_last_step_are_there(tmp_path):
    recording = record(Run.start(load_config(None, [f"run={tmp_path}"])), DATASET)
    assert recording.tasks[-1].path == "visibility"
    for task in recording:
        assert not recording.is_finished()
        task.step.finish()
    assert recording.is_finished()
    for lost in ("stage2", "visibility"):
        manifest = recording[lost].step.folder.read_bytes("manifest.json")
        recording[lost].step.folder.delete_file("manifest.json")
        assert not recording.is_finished(), lost
        recording[lost].step.folder.write_bytes("manifest.json", manifest)
    assert recording.is_finished()
