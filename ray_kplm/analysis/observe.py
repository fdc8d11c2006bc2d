"""Worker that runs a detector on images, views and composites of them: the observations that quality is measured from."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.config import AugmentConfig, Config
from ray_kplm.evaluation.label_free import Observations
from ray_kplm.evaluation.layout_reliance import SHIFT, MovedObjects
from ray_kplm.evaluation.transfer import PICTURE_SIDE
from ray_kplm.imaging import composites, coordinates
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.imaging.warp import displace
from ray_kplm.methods.inputs import make_inputs, read_inputs, worker_placement
from ray_kplm.methods.predicted import Observed
from ray_kplm.methods.predictors import LandmarkPredictorFactory, PredictorFactory
from ray_kplm.storage import Folder

VIEWS = 3
"""Number of known views of each image."""
MOTION = AugmentConfig(
    scale=(0.85, 1.15), translate=0.05, rotate=20.0, warp=0.04,
    brightness=(1, 1), contrast=(1, 1), colour_share=0.0, blur_share=0.0, noise_share=0.0,
)  # fmt: skip
"""Transforms of the views. They do not depend on the run's configuration, so that runs are comparable, and keep the colours."""
COMPOSITES_OF = 2
"""One image of so many has composites, to bound the time. Their errors are of several percent, so that fewer images do."""
OBSERVATIONS_VERSION = 2
"""Version of the composites and pictures. Observations of another version are made anew."""
_MOST_COVERED = 0.9
"""A cut-out that covers more of the image leaves no background to move the object over."""
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Work:
    """All that a worker needs.

    Attributes:
        config: The run's configuration.
        make: The detector.
        images: The images' folder.
        target: Folder of the observations.
    """

    config: Config
    make: PredictorFactory
    images: Folder
    target: Folder

    @property
    def alone(self) -> PredictorFactory:
        """The detector without averaging over the mirror image, for which image and mirror image would agree."""
        return replace(self.make, flip=False) if isinstance(self.make, LandmarkPredictorFactory) else self.make


class ObservePart:
    """Worker that holds the detector and writes its observations of a part's images."""

    def __init__(self, work: Work) -> None:
        """Build the detectors."""
        placement = worker_placement(work.config.compute)
        self._work, self._side = work, work.config.network.image_size
        self._detector = work.make(placement)
        self._alone = self._detector if work.alone is work.make else work.alone(placement)
        self._augmenter = Augmenter(MOTION, self._side)

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Write the observations of the rows of a part."""
        work = self._work
        if not work.target.is_whole(part):
            table = work.images.read_table(part, ["image_id", "image", "box"])
            last: NDArray[np.uint8] | None = None  # an image before the batch, whose background the batch may use
            tables = []
            for images, _, ids, boxes in make_inputs(table, rows, work.config):
                known = [box.astype(np.float64) if np.isfinite(box).all() else None for box in boxes]
                before = images[min(1, len(images) - 1)] if last is None else last
                others = np.concatenate([before[None], images[:-1]])
                tables.append(self._table(images, others, ids, known))
                last = images[-1]
            work.target.write_table(part, pa.concat_tables(tables))
        return {"images": len(rows)}

    def _table(
        self,
        images: NDArray[np.uint8],
        others: NDArray[np.uint8],
        ids: list[str],
        boxes: list[NDArray[np.float64] | None],
    ) -> pa.Table:
        seen = self._detector.observe(images)
        views = [self._view(images, ids, number, seen.xy) for number in range(VIEWS)]
        expected, found, confidence = (np.concatenate(column, axis=1) for column in zip(*views, strict=True))
        alone = self._alone(images).xy
        mirrored = self._alone(np.ascontiguousarray(images[:, :, ::-1])).xy
        turned = coordinates.mirrored(mirrored, self._side)
        values = (*seen, expected, found, confidence, alone, turned)
        columns = [ids, *([None] * len(ids) if v is None else v.astype(np.float32).tolist() for v in values)]
        columns += [[_encoded(image) for image in images], [None if b is None else b.tolist() for b in boxes]]
        columns += self._composites(images, others, ids, boxes, seen)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schemas.OBSERVATIONS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schemas.OBSERVATIONS)

    def _view(
        self, images: NDArray[np.uint8], ids: list[str], number: int, xy: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating], NDArray[np.float32], NDArray[np.float32]]:
        """Observe view `number` of each of B images.

        Returns:
            The positions (B, K, 2) of the images' landmarks `xy` in the view, NaN where it does not show them, and the
            landmarks (B, K, 2) and confidences (B, K) detected in the view.
        """
        seeds = [zlib.crc32(f"{number}:{name}".encode()) & 0x7FFFFFFF for name in ids]
        views = [self._augmenter(image, seed, flip=False) for image, seed in zip(images, seeds, strict=True)]
        placed = np.stack(
            [coordinates.apply(view.crop_to_view.astype(np.float64), p) for view, p in zip(views, xy, strict=True)]
        )
        known = np.isfinite(placed).all(axis=-1, keepdims=True)
        moved = displace(np.where(known, placed, 0), np.stack([view.shifts for view in views]), self._side)
        inside = ((moved >= 0) & (moved <= self._side - 1)).all(axis=-1, keepdims=True)
        found, confidence, *_ = self._detector(np.stack([view.picture for view in views]))
        return np.where(known & inside, moved, np.nan), found, confidence

    def _composites(
        self,
        images: NDArray[np.uint8],
        others: NDArray[np.uint8],
        ids: list[str],
        boxes: list[NDArray[np.float64] | None],
        seen: Observed,
    ) -> list[list[Any]]:
        """Return the columns `placed`, `moved`, `swapped`, `shift` and `covers`, None for images without composites."""
        made = [
            None if zlib.crc32(f"composites:{name}".encode()) % COMPOSITES_OF else _compose(image, other, box, xy, name)
            for image, other, box, xy, name in zip(images, others, boxes, seen.xy, ids, strict=True)
        ]
        pictures = [picture for c in made if c is not None for picture in c.pictures]
        found = iter(self._alone(np.stack(pictures))[0].astype(np.float32).tolist() if pictures else ())
        columns: list[list[Any]] = [[], [], [], [], []]
        for c in made:
            row = (
                [None] * 5
                if c is None
                else [next(found), next(found), next(found), c.shift.tolist(), c.covers.tolist()]
            )
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        return columns


@dataclass(frozen=True)
class _Composites:
    """Three composites of an image: see `layout_reliance.MovedObjects`."""

    pictures: list[NDArray[np.uint8]]
    shift: NDArray[np.float32]
    covers: NDArray[np.bool_]


def _compose(
    image: NDArray[np.uint8],
    other: NDArray[np.uint8],
    box: NDArray[np.float64] | None,
    xy: NDArray[np.float32],
    name: str,
) -> _Composites | None:
    """Return the composites of an image, None if what is cut out leaves no background or shows no landmark.

    The object is cut out by its box, or without one by the ellipse around its landmarks.
    """
    side = len(image)
    known = np.isfinite(xy).all(axis=-1)
    if not known.any():
        return None
    if box is None:
        mask, box = composites.ellipse_mask(xy[known].astype(np.float64), side)
    else:
        mask = composites.box_mask(box, side)
    if mask.mean() > _MOST_COVERED:
        return None
    rng = np.random.default_rng(zlib.crc32(f"shift:{name}".encode()))
    first, second = composites.placements(box, side, SHIFT, rng)
    background = composites.fill_background(image, mask)
    at = np.clip(np.rint(np.nan_to_num(xy)), 0, side - 1).astype(np.int64)
    return _Composites(
        [
            composites.paste(image, mask, background, first),
            composites.paste(image, mask, background, second),
            composites.paste(image, mask, composites.fill_background(other, mask), first),
        ],
        (second[:, 2] - first[:, 2]).astype(np.float32),
        known & (mask[at[:, 1], at[:, 0]] > 0.5),
    )


def _encoded(image: NDArray[np.uint8]) -> bytes:
    """Return an image as JPEG with a side of at most `PICTURE_SIDE`."""
    if len(image) > PICTURE_SIDE:
        image = np.asarray(cv2.resize(image, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes()


def read_observations(
    folder: Folder, parts: list[str], side: int, partners: NDArray[np.int16], *, always: bool
) -> Observations:
    """Read what workers wrote.

    Args:
        folder: Folder of the observations.
        parts: Names of the parts.
        side: Side of the network's input, pixels.
        partners: (K,), the detector's flip map.
        always: See `Observations.always`.
    """
    table = pa.concat_tables([folder.read_table(part) for part in parts])

    def column(name: str) -> NDArray[np.float64]:
        return np.array(table[name].to_pylist(), np.float64)

    def by_view(name: str) -> NDArray[np.float64]:
        values = column(name)
        return values.reshape(len(values), -1, len(partners), *values.shape[2:])

    return Observations(
        side=side,
        xy=column("xy"),
        confidence=column("confidence"),
        sharpness=column("sharpness"),
        separation=None if table["separation"].null_count else column("separation"),
        expected=by_view("expected"),
        found=by_view("found"),
        view_confidence=by_view("view_confidence"),
        alone=column("alone"),
        mirrored=column("mirrored"),
        partners=partners,
        always=always,
        pictures=np.stack([_decoded(encoded) for encoded in table["picture"].to_pylist()]),
        objects=_moved_objects(table.filter(table["shift"].is_valid())),
        boxes=_boxes(table["box"].to_pylist()),
    )


def _boxes(boxes: list[list[float] | None]) -> NDArray[np.float64] | None:
    """Return boxes (N, 4), NaN for those that are not given; None if none is."""
    if not any(boxes):
        return None
    return np.array([box if box else [np.nan] * 4 for box in boxes], np.float64)


def _moved_objects(table: pa.Table) -> MovedObjects | None:
    if not len(table):
        return None
    placed, moved, shift, swapped = (
        np.array(table[name].to_pylist(), np.float64) for name in ("placed", "moved", "shift", "swapped")
    )
    return MovedObjects(placed, moved, shift, swapped, np.array(table["covers"].to_pylist(), np.bool_))


def _decoded(encoded: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True)
class PredictWork:
    """All that a worker needs to run the detector of another run on the images of this one.

    Attributes:
        config: The other run's configuration, which says the side of its input.
        make: Its detector.
        images: This run's images.
        target: Folder of the landmarks.
    """

    config: Config
    make: PredictorFactory
    images: Folder
    target: Folder


class PredictPart:
    """Worker that writes the landmarks of a part's images by the detector of another run (schemas.OTHER_LANDMARKS)."""

    def __init__(self, work: PredictWork) -> None:
        """Build the detector."""
        self._work = work
        self._detector = work.make(worker_placement(work.config.compute))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Write the landmarks of the rows of a part."""
        work = self._work
        if not work.target.is_whole(part):
            side = work.config.network.image_size
            ids, landmarks = [], []
            for images, _, names, boxes in read_inputs(work.images, part, rows, work.config):
                ids += names
                landmarks += coordinates.in_square(self._detector(images, boxes)[0], np.array([side, side])).tolist()
            arrays = [pa.array(v, f.type) for v, f in zip((ids, landmarks), schemas.OTHER_LANDMARKS, strict=True)]
            work.target.write_table(part, pa.Table.from_arrays(arrays, schema=schemas.OTHER_LANDMARKS))
        return {"images": len(rows)}
