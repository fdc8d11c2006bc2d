"""Which way the objects of images face, for trainings and detectors that see all of them face one way."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.facing import FacingTemplate, facings
from ray_kplm.dense_features import DenseFeatures, build_features, describe_images
from ray_kplm.schemas import FACINGS
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import load_arrays

FACING = "facing"
"""The folder of the facings and of the template, in a run and in an exported detector."""
TEMPLATE = "template.npz"
MOST, ENLARGED = (0.05, 0.95), 1.25
"""Quantiles of the points that a box is put around, and the factor by which it is enlarged to hold the object."""
DOUBTFUL = 0.5
"""A facing of less magnitude has odds of less than 3 : 1."""


@dataclass(frozen=True)
class Facings:
    """The facings of a run's training images, on storage."""

    folder: Folder

    def of(self, part: str, image_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the facings of images of a part, in the order of `image_ids`: (n,)."""
        return self.of_parts([part], [image_ids])[0]

    def of_parts(self, parts: Sequence[str], image_ids: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Return the facings of images of some parts, which are read concurrently: for each part, see `of`."""
        found = []
        for table, ids in zip(self.folder.read_tables(parts, FACINGS.names), image_ids, strict=True):
            known = dict(zip(table["image_id"].to_pylist(), table["facing"].to_pylist(), strict=True))
            found.append(np.array([known[image] for image in ids], np.float32))
        return found


@dataclass
class FacingRule:
    """Gives the facing of any image of a category, from its pixels.

    Attributes:
        config: names the features.
        template: of their descriptors.
        box: (4,), x0, y0, x1, y1 of the training images' mean box, shares of the side of the network's input. It stands for the
            boxes of images that have none.
    """

    config: Config
    template: FacingTemplate
    box: NDArray[np.float32]
    _model: DenseFeatures | None = field(default=None, repr=False)

    def __call__(
        self,
        images: NDArray[np.uint8],
        boxes: NDArray[np.float32] | None = None,
        points: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Return the facings of inputs of the network, see `correspondence.facing.facings`: (B,).

        Args:
            images: (B, S, S, 3).
            boxes: (B, 4), the objects, pixels; NaN where unknown.
            points: (B, P, 2), points of the objects, pixels, NaN where not found. The evidence of the box around them is added
                to that of the mean box, for images without a box.
        """
        boxes = np.full((len(images), 4), np.nan, np.float32) if boxes is None else boxes
        unknown: NDArray[np.bool_] = np.asarray(np.isnan(boxes).any(axis=1))
        mean = np.broadcast_to(self.box * images.shape[1], boxes.shape)
        odds = self._half_log_odds(images, np.where(unknown[:, None], mean, boxes))
        if points is not None and unknown.any():
            around = box_around(points[unknown])
            around = np.where(np.isfinite(around), around, mean[unknown])
            odds[unknown] += self._half_log_odds(images[unknown], around)
        return facings(odds)

    def _half_log_odds(self, images: NDArray[np.uint8], boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        if self._model is None:
            self._model = build_features(self.config)
        objects = [cut(image, box) for image, box in zip(images, boxes, strict=True)]
        plain, mirrored = (describe_images(self._model, objects, mirrored=way) for way in (False, True))
        return self.template.half_log_odds(plain, mirrored)

    def write(self, folder: Folder) -> None:
        """Write the rule to a folder."""
        buffer, template = io.BytesIO(), self.template
        np.savez(buffer, mean=template.mean, direction=template.direction, sharpness=template.sharpness, box=self.box)
        folder.write_bytes(TEMPLATE, buffer.getvalue())

    @classmethod
    def read(cls, folder: Folder, config: Config) -> FacingRule:
        """Return the rule that `write` wrote."""
        with folder.parsing(TEMPLATE):
            arrays = load_arrays(folder.read_bytes(TEMPLATE))
            template = FacingTemplate(arrays["mean"], arrays["direction"], float(arrays["sharpness"]))
            return cls(config, template, arrays["box"])

    @classmethod
    def of_detector(cls, folder: Folder, config: Config) -> FacingRule | None:
        """Return the rule in a folder; None if it has none, as mirror images are not `facing`."""
        return cls.read(folder, config) if folder.is_file(TEMPLATE) else None


def box_around(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the box around most of the points of each image, enlarged: (B, 4); NaN without points.

    Args:
        points: (B, P, 2), NaN where not found.
    """
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of images without points
        low, high = np.nanquantile(points, MOST, axis=1)
    centre, half = (low + high) / 2, (high - low) / 2 * ENLARGED
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def cut(picture: NDArray[np.uint8], box: Sequence[float] | NDArray[np.floating] | None) -> NDArray[np.uint8]:
    """Return the part of a picture in a box; the picture without a box, or if hardly anything of the box lies in it."""
    if box is None:
        return picture
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    inside = picture[max(y0, 0) : max(min(y1, height) + 1, 0), max(x0, 0) : max(min(x1, width) + 1, 0)]
    return inside if min(inside.shape[:2]) >= 2 else picture
