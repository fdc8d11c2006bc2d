"""Chosen images with the points of a run, as files to correct the points in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.analysis.suggestion_pool import ImageFile
from ray_kplm.datasets.given_images import rgb_of
from ray_kplm.datasets.image_io import crop, full_window
from ray_kplm.detectors.stored import detector_fingerprint, landmark_predictor
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import contact_sheet, encode_png
from ray_kplm.inference.export import coco, label_studio
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
from ray_kplm.network.compute import Placement, choose_device
from ray_kplm.points.drawing import marks_of
from ray_kplm.points.layout import Layout
from ray_kplm.run import Run, versions
from ray_kplm.storage import Folder

IMAGES, SHEET = "images", "suggested.png"
_TILE, _COLUMNS = 200, 5


class _Seen(NamedTuple):
    """An image that was written: its path, size and points, and the same made small for the sheet."""

    path: str
    size: tuple[int, int]
    points: Landmarks
    tile: NDArray[np.uint8]
    tile_xy: NDArray[np.float64]


def write_suggestions(
    run: Run,
    files: Iterable[tuple[str, ImageFile]],
    target: Folder,
    *,
    title: str,
    points: str | None = None,
    names: tuple[str, ...] = (),
    device: str | None = None,
) -> dict[str, str]:
    """Write images with the points that a run finds in them: see `analysis.suggest`.

    Args:
        run: The run.
        files: Id and content of each image.
        target: The folder.
        title: Of the sheet.
        points: Which points of the run.
        names: Of points that are to be set, in place of those of the run; empty: those of the run.
        device: Of the network.

    Returns:
        The path below the folder of each id.
    """
    make, config = landmark_predictor(run, points), run.resolved
    placement = Placement.choose(config.compute, choose_device(device))
    detector = LandmarkDetector(make(placement), config.network.image_size, config.compute.batch_images, make.layout)
    paths, seen = dict[str, str](), list[_Seen]()
    for name, file in files:
        paths[name] = f"{IMAGES}/{_unique(file.path, paths)}"
        target.write_bytes(paths[name], file.content)
        seen.append(_see(detector, paths[name], file.content))
    found = _predictions(run, seen, detector.layout, points, names)
    label_studio.write(found, target)
    target.write_bytes(SHEET, _sheet(seen, detector.layout, title))
    coco.write(found, target)
    return paths


def _see(detector: LandmarkDetector, path: str, content: bytes) -> _Seen:
    rgb = rgb_of(content)
    (points,) = detector.predict(rgb)
    tile, to_source = crop(rgb, full_window(rgb), _TILE)
    tile_xy = coordinates.apply(coordinates.invert(to_source), points.xy)
    return _Seen(path, (rgb.shape[1], rgb.shape[0]), points, tile, tile_xy)


def _unique(path: str, others: Mapping[str, str]) -> str:
    """Return a path that none of the others has: two ids may differ in signs that paths do not have."""
    taken = {other.partition("/")[2] for other in others.values()}
    stem, dot, extension = path.rpartition(".")
    names = (path, *(f"{stem}_{number}{dot}{extension}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _sheet(seen: list[_Seen], layout: Layout, title: str) -> bytes:
    """Return the picture of all images with the points of the run. Points without own names have numbers."""
    is_named = layout.names != Layout.of("", layout.partners).names
    sheet = contact_sheet(
        [one.tile for one in seen], [one.tile_xy for one in seen],
        confidence=[one.points.found.astype(np.float32) for one in seen],
        columns=_COLUMNS, tile=_TILE, title=title, marks=marks_of(layout) if is_named else None,
    )  # fmt: skip
    return encode_png(sheet)


def _predictions(
    run: Run, seen: list[_Seen], layout: Layout, points: str | None, names: tuple[str, ...]
) -> Predictions:
    """Return the points as formats take them; of points that are to be set, none is."""
    found = [one.points for one in seen]
    if names:
        layout = Layout.of(layout.category, [schemas.NONE] * len(names), names)
        nowhere, none = np.full((len(names), 2), np.nan, np.float32), np.zeros(len(names), np.float32)
        found = [Landmarks(nowhere, none, none, none.astype(bool))] * len(seen)
    rows = [
        {
            "image_id": one.path,
            "xy": of_image.xy.tolist(),
            "confidence": of_image.confidence.tolist(),
            "probability": None if np.isnan(of_image.probability).any() else of_image.probability.tolist(),
            "found": of_image.found.tolist(),
            "width": one.size[0],
            "height": one.size[1],
        }
        for one, of_image in zip(seen, found, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schemas.SOURCE_LANDMARKS)
    detector, version = detector_fingerprint(run, points), versions().get("ray-kplm", "")
    predictions = Predictions(lambda: [table], layout, detector=detector, version=version, are_whole=True)
    return predictions if names else predictions.with_skeleton()
