"""The annotation of a split as arrays, for the evaluation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.missing_marks import COLUMNS, PointCounts, count_marks, find_marks
from ray_kplm.errors import DataError
from ray_kplm.imaging.crops import crop_sizes


class LandmarkArrays(NamedTuple):
    """The annotation of a split's N images, crop frame.

    Attributes:
        ids: The images.
        landmarks: (N, L, 2); NaN: not annotated, as it is where a mark of a missing point stood.
        boxes: (N, 4), x0, y0, x1, y1; NaN: unknown.
        sizes: (N, 2), width and height, pixels.
        visible: (N, L); False for landmarks that are hidden or not annotated.
        attributes: (N,) each; NaN: unknown.
        marks: Numbers of annotated points, of marks of missing ones and of points outside their picture.
    """

    ids: list[str]
    landmarks: NDArray[np.float32]
    boxes: NDArray[np.float32]
    sizes: NDArray[np.int32]
    visible: NDArray[np.bool_]
    attributes: dict[str, NDArray[np.float64]]
    marks: PointCounts = PointCounts()


def landmark_arrays(dataset: Dataset, split: str) -> LandmarkArrays:
    """Read the annotation of a split, without reading pixels.

    Raises:
        DataError: The dataset is not annotated.
    """
    if not dataset.has_landmarks:
        raise DataError(f"{dataset.root} has no landmarks to evaluate against; ingest it with --landmarks FILE")
    count = dataset.manifest["landmarks"]
    ids: list[str] = []
    landmarks = [np.empty((0, count, 2), np.float32)]
    boxes = [np.empty((0, 4), np.float32)]
    sizes = [np.empty((0, 2), np.int32)]
    visible = [np.empty((0, count), bool)]
    rows: list[dict[str, float]] = []
    marks = PointCounts()
    for part in dataset.parts(split):
        images = dataset.images(split).read_table(part, ["image_id", *COLUMNS])
        points = dataset.landmarks(split).read_table(part)
        assert images["image_id"].equals(points["image_id"]), f"{split}/{part}: images and landmarks differ"
        ids += images["image_id"].to_pylist()
        flat = pc.list_flatten(pc.list_flatten(points["landmarks"])).to_numpy()
        xy = flat.reshape(-1, count, 2)
        missing, _ = find_marks(xy, images)
        marks = marks.plus(count_marks(points, images))
        landmarks.append(
            np.where(missing[:, :, None] | np.isinf(xy).any(axis=2, keepdims=True), np.float32(np.nan), xy)
        )
        boxes.append(np.array([box or [np.nan] * 4 for box in images["box"].to_pylist()], np.float32).reshape(-1, 4))
        sizes.append(crop_sizes(images))
        visible.append(pc.list_flatten(points["visible"]).to_numpy().reshape(-1, count) & ~missing)
        rows += [dict(row) for row in points["attributes"].to_pylist()]
    names = sorted({name for row in rows for name in row})
    attributes = {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names}
    return LandmarkArrays(
        ids,
        np.concatenate(landmarks),
        np.concatenate(boxes),
        np.concatenate(sizes),
        np.concatenate(visible),
        attributes,
        marks,
    )
