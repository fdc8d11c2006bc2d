"""Fixtures of trainings and of clustering on Ray."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm import schemas
from ray_kplm.config import Config
from ray_kplm.correspondence.features import features_table, ragged, ragged_points
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.methods import build_method
from ray_kplm.methods.labels import Labels, keypoint_labels
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.train_loop import Training
from ray_kplm.storage import Folder

DIM, IMAGES, POINTS, PARTS = 32, 400, 10, 6
"""Random features: dimension of the descriptors, images in a part, keypoints in an image, parts."""


@pytest.fixture(scope="module")
def training_config(small_config: list[str]) -> list[str]:
    """Overrides: a warm-up that keeps a checkpoint every five iterations."""
    return [*small_config, "stage1.rounds=0", "stage1.negative_pairs=200", "compute.checkpoint_iterations=5"]


@pytest.fixture(scope="module")
def keypoints(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Six random keypoints in each training image."""
    folder, rng = Folder.at(tmp_path_factory.mktemp("keypoints")), np.random.default_rng(0)
    for part, rows in zip(small_dataset.parts("train"), small_dataset.rows("train"), strict=True):
        ids = small_dataset.images("train").read_table(part, ["image_id"])["image_id"]
        counts = np.full(rows, 6)
        columns = [
            ids,
            ragged_points(rng.uniform(5, 58, (6 * rows, 2)), counts),
            ragged(np.ones(6 * rows, np.float32), counts),
        ]
        folder.write_table(part, pa.Table.from_arrays(columns, schema=schemas.KEYPOINTS))
    return folder


def read_labels(folder: Folder, parts: list[str]) -> Labels:
    return keypoint_labels(folder.read_table(part) for part in parts)


@pytest.fixture(scope="module")
def make_training(small_dataset: Dataset, keypoints: Folder) -> Callable[..., Training]:
    """Build the warm-up of a configuration; labels come from `folder`, by default from `keypoints`."""

    def make(config: Config, folder: Folder = keypoints) -> Training:
        selection = full_selection(small_dataset.parts("train"), small_dataset.rows("train"))
        labels = read_labels(folder, selection.parts)
        method = build_method(config)
        return Training(
            config,
            method.objective(0),
            labels,
            method.round_plan(0, labels.usable()),
            method.round_schedule(0),
            RoundImages.load(small_dataset.images("train"), selection),
            None,
            (config.seed, 1, 0),
        )

    return make


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Random descriptors, on which K-means takes all of its iterations."""
    folder = Folder.at(tmp_path_factory.mktemp("features"))
    rng = np.random.default_rng(0)
    for part in range(PARTS):
        counts = np.full(IMAGES, POINTS)

        def unit() -> np.ndarray:
            points = rng.normal(size=(IMAGES * POINTS, DIM))
            return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))

        ids = [f"{part}/{i}" for i in range(IMAGES)]
        table = features_table(
            ids,
            np.full((IMAGES, 2), 90),
            counts,
            rng.uniform(0, 90, (IMAGES * POINTS, 2)),
            rng.random(IMAGES * POINTS),
            unit(),
            unit(),
        )
        folder.write_table(f"part-{part:05d}.parquet", table)
    return folder
