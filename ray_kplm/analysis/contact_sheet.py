"""Contact sheet of a split's images with the landmarks of a finished run: `kplm show`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.predictions import landmarks_of
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import DataError
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.draw import contact_sheet, encode_png
from ray_kplm.run import Run
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.steps.detect import keypoint_finder


def show(
    run: Run, split: str = TEST, count: int = 48, *, columns: int = 8, tile: int = 160, keypoints: bool = False
) -> bytes:
    """Draw a seeded sample of a split's images with their landmarks and keep it at `<run>/evaluation/<picture_name>`.

    Args:
        run: A finished run.
        split: The split.
        count: Number of images.
        columns: Images in a row.
        tile: Side of an image on the sheet, pixels.
        keypoints: Whether to draw each image twice, above with the generic keypoints with which the run would begin there.

    Returns:
        The sheet as PNG.

    Raises:
        DataError: The dataset has no images of the split.
        RunError: The run is not finished.
    """
    dataset = Dataset.open(run.config.dataset)
    if split not in dataset.manifest["splits"] or not dataset.count(split):
        raise DataError(f"{dataset.root}: has no {split} images; take --split {TRAIN}")
    find = _generic_keypoints(run, dataset, split) if keypoints else None
    xy, confidence = landmarks_of(run, dataset, split)
    total = dataset.count(split)
    chosen = np.sort(np.random.default_rng(run.config.seed).permutation(total)[:count])
    starts = np.cumsum([0, *dataset.rows(split)])
    images, generic = [], []
    for part, first, last in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= first) & (chosen < last)] - first
        if len(rows):
            images += [decode_crop(e) for e in dataset.images(split).read_table(part, ["image"]).take(rows)["image"]]
            generic += find(part, rows) if find else []
    above = f"{run.config.keypoints.detector} keypoints (above) and " if keypoints else ""
    title = f"{run.folder.name}: {above}{xy.shape[1]} landmarks on {len(images)} of {total} {split} images"
    median = np.median(confidence, axis=0)  # landmarks far below their median confidence are drawn hollow
    sheet = contact_sheet(
        images,
        list(xy[chosen]),
        confidence=list(confidence[chosen] / median.clip(1e-6)),
        keypoints=generic if keypoints else None,
        columns=columns,
        tile=tile,
        title=title,
    )
    png = encode_png(sheet)
    (run.folder / "evaluation").write_bytes(picture_name(split, keypoints), png)
    return png


def picture_name(split: str, keypoints: bool = False) -> str:
    """Return the file name of the contact sheet of a split: `test.png`, or with keypoints `test_keypoints.png`."""
    return f"{split}_keypoints.png" if keypoints else f"{split}.png"


def _generic_keypoints(
    run: Run, dataset: Dataset, split: str
) -> Callable[[str, NDArray[np.int64]], list[NDArray[np.float32]]]:
    """Return the function that finds the generic keypoints of rows of a part, as the run did."""
    run.finished("keypoints")
    config = run.config
    return keypoint_finder(
        dataset.images(split), dataset.landmarks(split), run.unit("keypoints"), config.keypoints, config.seed
    )
