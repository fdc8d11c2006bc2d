"""The step that decides what a mirror image is, end to end on the synthetic animals and the synthetic creature."""

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.errors import RunError
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.methods.facing import FACING, FacingRule
from ray_kplm.run import Run
from ray_kplm.steps import facing as module
from ray_kplm.steps.executor import Executor
from ray_kplm.steps.facing import decided, decided_method, evidence_text
from ray_kplm.steps.ingest import ingest
from ray_kplm.steps.recorder import record

TRAIN_IMAGES, PARTS = 72, 3


@pytest.fixture(scope="module")
def animals(ray_cluster, tmp_path_factory) -> tuple[Dataset, dict[str, float]]:
    """72 training images of animals seen from the side in three parts, and the side (+1 or -1) of each one's muzzle."""
    folder = tmp_path_factory.mktemp("animals")
    write_category(folder / "source", 90, kind="profile", size=64, test_share=0.2)
    ingest(folder / "source", folder / "dataset", IngestOptions(part_images=24))
    names = json.loads((folder / "source" / "dataset.json").read_text())["landmark_names"]
    rows = pq.read_table(folder / "source" / "train.parquet", columns=["image_id", "landmarks"])
    x = np.array(rows["landmarks"].to_pylist())[..., 0]
    sides = np.sign(x[:, names.index("muzzle")] - x[:, names.index("tail_base")])
    return Dataset.open(folder / "dataset"), dict(zip(rows["image_id"].to_pylist(), sides.tolist(), strict=True))


@pytest.fixture
def begin(small_config, tmp_path):
    """Makes a run on a data set, and its recording."""

    def make(dataset, *overrides):
        paths = [f"dataset={dataset.root}", f"run={tmp_path / 'run'}"]
        run = Run.start(load_config(None, [*small_config, *paths, *overrides])).save()
        recording = record(run, dataset)
        return run, recording, recording[FACING]

    return make


def find(run, recording):
    Executor(run, recording).execute(until=recording[FACING])
    return recording[FACING].manifest


def facings_of(task):
    dataset, facings = task.context.dataset, task.facings()
    ids = [
        column.to_pylist()
        for part in dataset.parts("train")
        for column in task.context.images.read_table(part, ["image_id"]).columns
    ]
    found = [facings.of(part, names) for part, names in zip(dataset.parts("train"), ids, strict=True)]
    return list(itertools.chain(*ids)), np.concatenate(found)


def test_animals_seen_from_the_side_are_noticed_and_turned_the_right_way(animals, begin):
    dataset, sides = animals
    run, recording, task = begin(dataset, "method.mirror=auto")
    facts = find(run, recording)
    assert facts["mirror"] == "facing"
    assert facts["sample"] == TRAIN_IMAGES
    assert {"contrast", "symmetric", "kurtosis", "agreement", "doubtful", "positive"} <= facts.keys()
    ids, facing = facings_of(task)
    right = np.sign(facing) == [sides[name.split("/")[-1]] for name in ids]
    assert max(right.mean(), 1 - right.mean()) >= 0.95
    assert facts["positive"] == pytest.approx((facing > 0).mean())
    assert facts["doubtful"] == pytest.approx((np.abs(facing) < 0.5).mean())

    whole = task.context.selection(1)
    np.testing.assert_array_equal(task.of_images(whole), facing)
    few = whole.sample(10, (1,))
    np.testing.assert_array_equal(task.of_images(few), facing[np.isin(np.arange(len(ids)), chosen_rows(whole, few))])
    assert decided(run.config, task).method.mirror == "facing"
    assert decided_method(task.context, task).config.method.mirror == "facing"
    assert "facings agree by" in evidence_text(facts)


def chosen_rows(whole, few):
    """The indices in `whole` of the images of `few`."""
    starts = dict(zip(whole.parts, np.cumsum([0, *(len(rows) for rows in whole.rows)]), strict=False))
    return np.concatenate([starts[part] + rows for part, rows in zip(few.parts, few.rows, strict=True)])


def test_the_rule_of_a_run_gives_new_images_the_facing_of_its_own(animals, begin):
    dataset, _ = animals
    run, recording, _ = begin(dataset, "method.mirror=facing")
    find(run, recording)
    rule = FacingRule.of_detector(run.unit("facing"), run.config)
    assert ((rule.box >= 0) & (rule.box <= 1)).all()
    assert rule.box[0] == pytest.approx(
        1 - 1 / 64 - rule.box[2], abs=1e-4
    )  # a mean of boxes and of their mirror images
    batches = list(module.read_inputs(dataset.images("train"), dataset.parts("train")[0], np.arange(24), run.config))
    for batch in batches:
        turned = batch.mirrored(np.ones(len(batch.ids), bool))
        np.testing.assert_allclose(rule(batch.images, batch.boxes), -rule(turned.images, turned.boxes), atol=1e-3)


def test_parts_that_were_done_before_an_interruption_are_not_done_again(animals, begin, monkeypatch):
    dataset, _ = animals
    run, recording, task = begin(dataset, "method.mirror=facing")
    every = find(run, recording)
    parts = dataset.parts("train")
    before = [task.folder.read_table(part) for part in parts]
    task.folder.delete_file("manifest.json")
    task.folder.delete_file(parts[1])
    marked = before[0].set_column(1, "facing", [[0.125] * before[0].num_rows])
    task.folder.write_table(parts[0], marked.cast(before[0].schema))
    again = find(run, recording)
    facts = every.keys() - {"seconds", "outputs", "sha256"}
    assert {name: again[name] for name in facts} == {name: every[name] for name in facts}
    assert set(task.folder.read_table(parts[0])["facing"].to_pylist()) == {0.125}
    for part, table in zip(parts[1:], before[1:], strict=True):
        assert task.folder.read_table(part).equals(table)


def test_another_mirror_is_another_step(animals, begin):
    dataset, _ = animals
    begin(dataset, "method.mirror=auto")[2].step.begin()
    other = begin(dataset, "method.mirror=facing")[2]
    with pytest.raises(RunError, match=r"mirror was 'auto', is 'facing'"):
        other.step.manifest()


def test_objects_seen_from_the_front_have_partners_and_no_facings(small_dataset, begin):
    run, recording, task = begin(small_dataset, "method.mirror=auto")
    facts = find(run, recording)
    assert facts["mirror"] == "partners"
    assert "agreement" not in facts
    assert task.facings() is None
    assert task.of_images(task.context.selection(1)) is None
    assert FacingRule.of_detector(run.unit("facing"), run.config) is None
    assert decided(run.config, task).method.mirror == "partners"
    assert task.folder.names() == ["manifest.json"]
    assert evidence_text(facts).startswith("mirror images have partners: ")
