"""What a step's fingerprint covers, and which images the rounds of a run see."""

from types import SimpleNamespace

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.methods import build_method
from ray_kplm.run import Run
from ray_kplm.steps.graph import Steps
from ray_kplm.storage import Folder

# 40 views of the warm-up, 32 of each of two rounds, 96 of stage 2.
UNEQUAL = [
    "stage1.batch_size=4", "stage1.warmup_iterations=10", "stage1.rounds=2", "stage1.round_iterations=4",
    "stage2.batch_size=4", "stage2.iterations=24",
]  # fmt: skip


@pytest.fixture
def steps(tmp_path):
    """The steps of a run on a dataset of some parts, whose images are not looked at."""

    def make(images, *changes, part_images=10):
        rows = [part_images] * (images // part_images)
        parts = [f"part-{i:05d}.parquet" for i in range(len(rows))]
        splits = {"train": {"parts": parts, "rows": rows, "images": images}}
        manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
        Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
        Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "cats"})
        config = load_config(None, [f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}", *UNEQUAL, *changes])
        return Steps(Run.start(config), Dataset.open(config.dataset), build_method(config))

    return make


def seen(steps, number):
    selection = steps.selection(number)
    return [(part, int(row)) for part, rows in zip(selection.parts, selection.rows, strict=True) for row in rows]


def test_no_image_comes_twice_before_all_were_seen_whatever_the_sizes(steps):
    run = steps(200)
    assert [run.images(number) for number in range(4)] == [40, 32, 32, 96]
    images = [image for number in range(4) for image in seen(run, number)]
    assert len(images) == len(set(images)) == 200


def test_all_images_are_drawn_in_every_round_of_a_small_dataset(steps):
    run = steps(30)
    whole = [(f"part-{part:05d}.parquet", row) for part in range(3) for row in range(10)]
    assert [seen(run, number) for number in range(4)] == [whole] * 4
    assert all("images_before" not in step.reads for step in run)


def test_a_step_whose_images_change_has_another_fingerprint(steps):
    """A longer warm-up moves the images of round 1, and by them nothing else that round 1's training reads."""
    short, longer = steps(200), steps(200, "stage1.warmup_iterations=11")
    assert seen(short, 1) != seen(longer, 1)
    assert short.train[1].reads["images_before"] == 40
    assert longer.train[1].reads["images_before"] == 44
    assert short.features[0].reads["images_before"] == 40


def test_rounds_of_one_size_are_known_by_their_number(steps):
    """As they were before the sizes counted: such runs continue."""
    run = steps(200, "round_images=30")
    assert all("images_before" not in step.reads for step in run)
    images = np.array([sorted(seen(run, number)) for number in range(4)])
    assert len(np.unique(images.reshape(-1, 2), axis=0)) == 120


def test_a_selection_of_a_large_dataset_is_made_of_few_parts(steps):
    run = steps(10_000_000, "round_images=1000", part_images=500)
    assert len(run.selection(3).parts) <= 4


DATASET = SimpleNamespace(
    fingerprint="d", count=lambda split: 60, parts=lambda split: ["part-00000.parquet"], rows=lambda split: [60]
)


def fingerprints(folder, kind: str, *overrides: str) -> dict[str, str]:
    config = load_config(None, [f"run={folder}", f"method.kind={kind}", "stage1.rounds=1", *overrides])
    run = Run.start(config)
    return {step.folder.path.removeprefix(run.folder.path + "/"): step.fingerprint
            for step in Steps(run, DATASET, build_method(config))}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "override", "first"),
    [
        ("merge", "keypoints.scales=[1.0, 1.3]", "keypoints"),
        ("kplm", "stage1.decay=cosine", "rounds/000/train"),
        ("template", "stage1.decay=cosine", "rounds/000/train"),
        ("template", "stage2.decay_at=[0.5]", "stage2/000/train"),
        ("template", "template.sample=50", "template/labels"),
    ],
)
def test_an_option_changes_the_first_step_that_reads_it_and_all_that_follow(tmp_path, kind, override, first):
    before, after = fingerprints(tmp_path, kind), fingerprints(tmp_path, kind, override)
    changed = [before[path] != after[path] for path in before]
    place = list(before).index(first)
    assert changed == [False] * place + [True] * (len(before) - place)
