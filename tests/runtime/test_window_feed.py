"""Views of a plan by windows: in its order, with their labels, each part read once, few windows held."""

from functools import partial

import numpy as np
import pytest
import torch

from ray_kplm.config import AugmentConfig
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.methods.device_views import DeviceViews
from ray_kplm.methods.labels import CarriedLabels, Labels
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.window_feed import feed_windows
from ray_kplm.runtime.window_store import LabelledParts, WindowImages

SIZE, AUGMENT = 64, AugmentConfig(warp=0.05, paste=0.0)


def labels_of(counts, part: str) -> Labels:
    """Three points an image, of which every fifth image has one: it is not usable. A point's place says whose it is."""
    number = int(part.removeprefix("part-").removesuffix(".parquet"))
    count = counts[number]
    xy = np.stack([np.full((count, 3), 16.0 + number), 16.0 + np.arange(count)[:, None] + np.zeros(3)], -1)
    present = np.ones((count, 3), bool)
    present[::5, 1:] = False
    identity = np.where(present, np.arange(3), -1).astype(np.int32)
    return Labels(xy.astype(np.float32), identity, identity[:, ::-1].copy(), present)


@pytest.fixture(scope="module")
def selection(small_dataset) -> Selection:
    return full_selection(small_dataset.parts("train"), small_dataset.rows("train"))


@pytest.fixture(scope="module")
def parts(small_dataset, selection) -> LabelledParts:
    return LabelledParts(small_dataset.images("train"), selection, partial(labels_of, small_dataset.rows("train")))


@pytest.fixture(scope="module")
def plan(selection) -> WindowPlan:
    return WindowPlan(len(selection.parts), selection.images, 25, 4, True, (1, 2), window_parts=2)


def batches(plan, images, **options):
    chosen = {"first": 0, "rank": 0, "workers": 1, "data_workers": 1} | options
    return list(feed_windows(plan, images, AUGMENT, SIZE, **chosen))


@pytest.fixture(scope="module")
def whole(plan, parts):
    return batches(plan, WindowImages.open(plan, parts))


def test_views_are_those_of_the_plan_with_their_labels(whole, plan, parts, selection):
    assert len(whole) == plan.iterations
    stored = RoundImages.load(parts.images, selection)
    starts, augment = dict(zip(selection.parts, stored.starts, strict=True)), Augmenter(AUGMENT, SIZE)
    window, place, seen = 0, 0, []
    while place < 100:
        members = [selection.parts[i] for i in plan.members(window)]
        all_labels = [parts.labels(part) for part in members]
        usable = np.concatenate([starts[p] + each.usable() for p, each in zip(members, all_labels, strict=True)])
        labels = Labels.joined([each.rows(each.usable()) for each in all_labels])
        shown = plan.shown(window, len(usable))
        for image, seed, flip in zip(*shown, strict=True):
            if place == 100:
                break
            batch, row = whole[place // 4], place % 4
            if place % 7 == 0:
                view = augment(stored[int(usable[image])], int(seed), bool(flip))
                np.testing.assert_array_equal(batch.picture[row], view.picture)
            np.testing.assert_array_equal(batch.labels.xy[row], labels.xy[image])
            np.testing.assert_array_equal(batch.labels.identity_flipped[row], labels.identity_flipped[image])
            assert bool(batch.flip[row]) == flip
            seen.append(usable[image])
            place += 1
        window += 1
    assert window > plan.windows
    count = len(set(seen))
    assert len(set(seen[:count])) == count == sum(len(parts.labels(part).usable()) for part in selection.parts)
    points = CarriedLabels().in_views(whole[0], torch.device("cpu"))
    assert points.valid.shape == (4, 3)
    assert points.valid.any()


def test_a_device_makes_the_same_views_with_the_same_labels(whole, plan, parts):
    """On a CPU through the code that a GPU runs, without the tasks' rounding."""
    made = DeviceViews(AUGMENT, SIZE, torch.device("cpu"))
    for task, device in zip(whole, batches(plan, WindowImages.open(plan, parts), device_views=made), strict=True):
        assert np.abs(255 * device.picture.numpy() - task.picture).mean() < 1
        np.testing.assert_allclose(device.crop_to_view, task.crop_to_view, atol=1e-4)
        np.testing.assert_array_equal(device.labels.xy, task.labels.xy)


def same(one, two):
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.flip, b.flip)
        np.testing.assert_array_equal(a.labels.xy, b.labels.xy)


def test_a_training_that_continues_gets_the_same_views_from_a_new_store(whole, plan, parts):
    same(whole[17:], batches(plan, WindowImages.open(plan, parts), first=17, data_workers=2))


def test_workers_share_every_iteration_and_read_each_window_once(whole, plan, parts):
    images = WindowImages.open(plan, parts)
    halves = [batches(plan, images, rank=rank, workers=2) for rank in (0, 1)]
    for both, one in zip(zip(*halves, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([b.picture for b in both]), one.picture)


def test_a_training_without_usable_images_says_so(plan, parts):
    nothing = LabelledParts(parts.images, parts.selection, lambda part: labels_of([0] * 9, part))
    with pytest.raises(CollapseError, match="no image has two labelled landmarks"):
        WindowImages.open(plan, nothing).windows(0, 5, 0, 1)


@pytest.mark.slow
def test_a_training_continues_with_the_same_views_after_its_store_was_killed(whole, plan, parts, kill_workers):
    images, found = WindowImages.open(plan, parts), []
    for batch in feed_windows(plan, images, AUGMENT, SIZE, first=0, rank=0, workers=1, data_workers=1):
        found.append(batch)
        if len(found) == 5:
            assert kill_workers("WindowStore")
            break
    same(whole, found + batches(plan, images, first=5))
