"""A plan is executed in its order, whoever makes the views, and a resume is its tail."""

import numpy as np
import pytest

from ray_kplm.config import AugmentConfig
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.selection import everything
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.imaging.synthetic import write_category
from ray_kplm.methods.plan import pair_plan
from ray_kplm.steps import session
from ray_kplm.steps.feed import feed
from ray_kplm.steps.images import RoundImages
from ray_kplm.steps.ingest import ingest

SIZE = 64
AUGMENT = AugmentConfig(warp=0.05)


@pytest.fixture(scope="module")
def images(tmp_path_factory, ray_cluster):
    session.settle()
    folder = tmp_path_factory.mktemp("feed")
    write_category(folder / "source", 30, size=SIZE)
    ingest(folder / "source", folder / "dataset", IngestOptions(part_images=8))
    dataset = Dataset.open(folder / "dataset")
    selection = everything(dataset.parts("train"), dataset.rows("train"))
    return RoundImages.load(dataset.images("train"), selection), selection.images


@pytest.fixture(scope="module")
def plan(images):
    _, count = images
    return pair_plan(np.arange(count), iterations=40, pairs=4, same_image_share=0.2, flip=True, seed=(1, 2))


def batches(plan, images, **options):
    chosen = {"first": 0, "rank": 0, "workers": 1, "actors": 1} | options
    return list(feed(plan, images[0], AUGMENT, SIZE, **chosen))


def test_views_are_those_of_the_plan_in_its_order(plan, images):
    found = batches(plan, images)
    assert len(found) == plan.iterations
    assert np.concatenate([b.image for b in found]).tolist() == plan.image.tolist()
    assert np.concatenate([b.flip for b in found]).tolist() == plan.flip.tolist()
    augment, row = Augmenter(AUGMENT, SIZE), 8 * 11 + 3
    view = augment(images[0][int(plan.image[row])], int(plan.seed[row]), bool(plan.flip[row]))
    np.testing.assert_array_equal(found[11].picture[3], view.picture)
    np.testing.assert_array_equal(found[11].crop_to_view[3], view.crop_to_view)
    np.testing.assert_array_equal(found[11].shifts[3], view.shifts)


def test_the_number_of_actors_changes_nothing(plan, images):
    one, two = batches(plan, images, actors=1), batches(plan, images, actors=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)


def test_a_resume_is_the_tail(plan, images):
    whole, tail = batches(plan, images), batches(plan, images, first=29)
    assert len(tail) == 11
    for a, b in zip(whole[29:], tail, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.image, b.image)
    assert batches(plan, images, first=40) == []


def test_workers_share_every_iteration(plan, images):
    whole = batches(plan, images)
    halves = [batches(plan, images, rank=rank, workers=2) for rank in (0, 1)]
    for iteration, both in enumerate(zip(*halves, strict=True)):
        np.testing.assert_array_equal(np.concatenate([b.picture for b in both]), whole[iteration].picture)
