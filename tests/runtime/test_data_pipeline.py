"""The views of a plan: in its order, whatever process makes them, and from any iteration on."""

from contextlib import suppress
from typing import ClassVar

import cv2
import numpy as np
import psutil
import pytest
import ray
import torch
from ray.data import DataContext

from ray_kplm.bench.train import in_memory
from ray_kplm.config import AugmentConfig, load_config
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.datasets.sequences import read_frames
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.methods import build_method
from ray_kplm.methods.device_views import DeviceViews
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.sampling import AnyImages, pair_plan
from ray_kplm.runtime import session
from ray_kplm.runtime.data_pipeline import block_ends, feed, object_store_limit
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.ray_private import ExecutionCallback
from ray_kplm.steps.ingest import ingest

SIZE = 64
AUGMENT = AugmentConfig(warp=0.05, paste=0.0)


@pytest.fixture(scope="module")
def images(small_dataset):
    """The training images and their number."""
    selection = full_selection(small_dataset.parts("train"), small_dataset.rows("train"))
    return RoundImages.load(small_dataset.images("train"), selection), selection.images


@pytest.fixture(scope="module")
def plan(images):
    _, count = images
    return pair_plan(AnyImages(np.arange(count), 0.2), iterations=40, pairs=4, flip=True, seed=(1, 2))


def batches(plan, images, **options):
    chosen = {"first": 0, "rank": 0, "workers": 1, "data_workers": 1} | options
    return list(feed(plan, images[0], AUGMENT, SIZE, **chosen))


def ray_processes() -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may end meanwhile
            if process.cmdline()[0].startswith("ray::"):
                found.add(process.pid)
    return found


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


def test_the_number_of_data_workers_does_not_change_the_views(plan, images):
    one, two = batches(plan, images, data_workers=1), batches(plan, images, data_workers=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)


def test_the_next_training_uses_the_processes_of_the_last(plan, images):
    """A pool of actors would be started again, and a short round would wait for it."""
    batches(plan, images)
    running = ray_processes()
    for _ in feed(plan, images[0], AUGMENT, SIZE, first=0, rank=0, workers=1, data_workers=1):
        assert ray_processes() <= running


def test_a_device_makes_the_views_of_the_tasks_whoever_decodes_and_takes_them(plan, images):
    """On a CPU through the code that a GPU runs. The tasks' views are rounded to whole grey levels, after each transform."""
    made = DeviceViews(AUGMENT, SIZE, torch.device("cpu"))
    by_tasks, on_device = batches(plan, images), batches(plan, images, device_views=made)
    halves = [batches(plan, images, device_views=made, rank=r, workers=2, data_workers=2) for r in (0, 1)]
    for task, device, *parts in zip(by_tasks, on_device, *halves, strict=True):
        error = np.abs(255 * device.picture.numpy() - task.picture)
        assert error.mean() < 1
        assert (error > 3).mean() < 0.1
        np.testing.assert_allclose(device.crop_to_view, task.crop_to_view, atol=1e-4)
        np.testing.assert_array_equal(device.shifts, task.shifts)
        np.testing.assert_array_equal(device.image, task.image)
        np.testing.assert_allclose(device.picture, torch.cat([part.picture for part in parts]), atol=1e-6)


@pytest.mark.slow
def test_a_killed_process_does_not_change_the_views(images, kill_workers):
    _, count = images
    long = pair_plan(AnyImages(np.arange(count), 0.2), iterations=300, pairs=4, flip=True, seed=(1, 3))
    whole, found, killed = batches(long, images), [], 0
    for batch in feed(long, images[0], AUGMENT, SIZE, first=0, rank=0, workers=1, data_workers=1):
        found.append(batch)
        killed = killed or kill_workers("MapBatches(make_views)")
    assert killed
    for a, b in zip(whole, found, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)


MIB = 2**20


def test_the_object_store_for_a_pipeline_grows_with_its_tasks_and_their_blocks():
    """320 views of 256 pixels are 60 MiB. Batches of 32 leave two blocks at the consumer: a prefetched one, and one in use."""
    least, huge = session.OBJECT_STORE_BYTES, 2**50
    assert object_store_limit(32, 256, 8, 1, huge) == 2 * 60 * MIB * (2 * 8 + 2)
    assert object_store_limit(32, 256, 16, 1, huge) == 2 * 60 * MIB * (2 * 16 + 2)
    assert object_store_limit(32, 512, 8, 1, huge) == 2 * 96 * MIB * (2 * 8 + 2)  # 128 views, the least
    assert object_store_limit(400, 256, 8, 1, huge) == 2 * 400 * 3 * 256**2 * (
        2 * 8 + 3
    )  # a batch is a block, two are prefetched
    assert object_store_limit(32, 32, 1, 1, huge) == least  # as all pipelines have
    assert object_store_limit(32, 256, 8, 1, 1000 * MIB) == 500 * MIB  # half of the store,
    assert object_store_limit(32, 256, 8, 4, 1000 * MIB) == 125 * MIB  # which four workers share


def test_blocks_are_small_at_first_and_whole_batches():
    assert block_ends(2000, 32, 256, 2) == [128, 256, 384, 512, 832, 1152, 1472, 1792, 2000]
    assert block_ends(4000, 100, 64, 1) == [100, 200, 1200, 2200, 3200, 4000]  # at most 1024 views
    assert block_ends(1200, 300, 512, 1) == [300, 600, 900, 1200]
    assert block_ends(96, 32, 256, 4) == [96]
    assert block_ends(256, 32, 256, 1) == [128, 256]


class Limits(ExecutionCallback):
    """Notes the object store that Ray Data may fill in each execution."""

    seen: ClassVar[set[float]] = set()

    def on_execution_step(self, executor):
        self.seen.add(executor._options.resource_limits.object_store_memory)


def test_a_pipeline_may_fill_the_object_store_of_its_tasks(plan, images, monkeypatch):
    context = DataContext.get_current()
    monkeypatch.setattr(
        context, "custom_execution_callback_classes", [*context.custom_execution_callback_classes, Limits]
    )
    Limits.seen.clear()
    batches(plan, images, data_workers=300)
    store = ray.cluster_resources()["object_store_memory"]
    assert Limits.seen == {object_store_limit(8, SIZE, 300, 1, store)}
    assert min(Limits.seen) > session.OBJECT_STORE_BYTES


def test_a_resumed_pipeline_continues_with_the_same_views(plan, images):
    whole, tail = batches(plan, images), batches(plan, images, first=29)
    assert len(tail) == 11
    for a, b in zip(whole[29:], tail, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.image, b.image)
    assert batches(plan, images, first=40) == []


def test_training_workers_share_every_iteration(plan, images):
    whole = batches(plan, images)
    halves = [batches(plan, images, rank=rank, workers=2) for rank in (0, 1)]
    for iteration, both in enumerate(zip(*halves, strict=True)):
        np.testing.assert_array_equal(np.concatenate([b.picture for b in both]), whole[iteration].picture)


def test_points_follow_a_video_into_its_nearby_frames(tmp_path, ray_cluster):
    rng, count, step = np.random.default_rng(0), 12, 1.5
    wide = cv2.resize(rng.integers(0, 256, (16, 24, 3)).astype(np.uint8), (96, 64), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "in").mkdir()
    lines = ["image,sequence,frame"]
    for i in range(count):
        shift = np.float32([[1, 0, -step * i], [0, 1, 0]])
        cv2.imwrite(str(tmp_path / "in" / f"{i:02d}.png"), cv2.warpAffine(wide, shift, (96, 64))[:, :SIZE])
        lines.append(f"{i:02d}.png,drift,{i}")
    (tmp_path / "frames.csv").write_text("\n".join(lines))
    options = IngestOptions(sequences=str(tmp_path / "frames.csv"), test_share=0.0, part_images=5)
    ingest(tmp_path / "in", tmp_path / "dataset", options)
    dataset = Dataset.open(tmp_path / "dataset")
    assert dataset.has_sequences
    selection = full_selection(dataset.parts("train"), dataset.rows("train"))
    frames = read_frames(dataset.images("train"), selection)
    assert frames.frame.tolist() == list(range(count))

    config = load_config(None, ["stage1.warmup_iterations=10", "stage1.batch_size=4", "augment.rotate=0", "augment.scale=[1,1]",
                         "augment.translate=0", "dataset=d", "run=r"])  # fmt: skip
    plan = build_method(config).round_plan(0, np.arange(count), frames)
    gap = np.abs(plan.shown - plan.image).reshape(-1, 2)
    assert gap[:, 0].max() == 0
    assert gap[:, 1].min() >= 1
    assert gap[:, 1].max() == 5
    xy = np.stack(np.meshgrid([24.0, 32, 40], [20.0, 32, 44]), -1).reshape(1, -1, 2).repeat(count, 0).astype(np.float32)
    identity = np.tile(np.arange(9, dtype=np.int32), (count, 1))
    labels = Labels(xy, identity, identity, np.ones((count, 9), bool))
    loaded = RoundImages.load(dataset.images("train"), selection)
    for number, views in enumerate(
        feed(plan, loaded, config.augment, SIZE, first=0, rank=0, workers=1, data_workers=1)
    ):
        points = labels.in_views(views, torch.device("cpu"))
        drift = -step * (plan.shown - plan.image)[8 * number : 8 * (number + 1)]
        placed = points.xy.numpy() * 4 + 1.5  # heatmap cells -> pixels
        wanted = xy[0] + np.stack([drift, 0 * drift], -1)[:, None]
        close = np.abs(placed - wanted).max(-1) < 1.0
        assert close[points.valid.numpy()].mean() > 0.9
        assert points.valid.numpy().mean() > 0.7


def test_batches_from_memory_repeat_the_first_eight(plan, images):
    piped = batches(plan, images, first=0)
    kept = in_memory(plan, images[0], AUGMENT, SIZE, first=3, rank=0, workers=1, data_workers=1)
    found = list(kept)
    assert len(found) == plan.iterations - 3
    for i, batch in enumerate(found):
        np.testing.assert_array_equal(batch.picture, piped[i % 8].picture)
