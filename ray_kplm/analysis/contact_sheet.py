"""Contact sheet of a split's images with the landmarks of a finished run, or the points made of them: `kplm show`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.predictions import landmarks_of, stored_landmarks_of
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.stored import is_run, landmark_predictor
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.draw import Marks, contact_sheet, encode_png
from ray_kplm.inference.batches import predict_batches
from ray_kplm.inference.dataset import SplitLandmarks
from ray_kplm.methods.inputs import read_inputs, worker_placement
from ray_kplm.methods.predicted import Predicted
from ray_kplm.methods.visibility import found_of
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, LANDMARKS, chosen_name, point_folder, read_point_set
from ray_kplm.report.edited_points import marks_of, marks_with
from ray_kplm.run import Run
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.steps.detect import keypoint_finder


def show(
    run: Run,
    split: str = TEST,
    count: int = 48,
    *,
    columns: int = 8,
    tile: int = 160,
    keypoints: bool = False,
    points: str | None = None,
) -> bytes:
    """Draw a seeded sample of a split's images with their landmarks and keep it at `<run>/evaluation/<picture_name>`.

    Args:
        run: A finished run.
        split: The split.
        count: Number of images.
        columns: Images in a row.
        tile: Side of an image on the sheet, pixels.
        keypoints: Whether to draw each image twice, above with the generic keypoints with which the run would begin there.
        points: Which points to draw: see `LandmarkDetector.load`.

    Returns:
        The sheet as PNG.

    Raises:
        ConfigError: `count` or `tile` is too small.
        DataError: The dataset has no images of the split, or the run no such points.
        RunError: The run is not finished.
    """
    dataset, name = _open(run, split, count, tile), chosen_name(run.folder, points)
    chosen = choose_images(run, dataset, split, count)
    whole = landmarks_of(run, dataset, split) if name in (LANDMARKS, EDITED) else None
    shown = _shown(run, dataset, split, chosen, name, whole)
    png = _draw(run, dataset, split, chosen, shown, columns, tile, keypoints)
    (run.folder / "evaluation").write_bytes(picture_name(split, keypoints), png)
    return png


def draw_sheet(
    run: Run,
    split: str = TEST,
    count: int = 48,
    *,
    columns: int = 8,
    tile: int = 160,
    keypoints: bool = False,
    points: str | None = None,
) -> bytes:
    """Draw the sheet of `show` and write nothing: landmarks that the run does not hold yet are predicted for its images only.

    Ray is not needed. The arguments, the result and the errors are those of `show`; an exported detector has its own points.
    """
    dataset, name = _open(run, split, count, tile), chosen_name(run.folder, points) if is_run(run) else None
    chosen = choose_images(run, dataset, split, count)
    whole = stored_landmarks_of(run, dataset, split) if name in (LANDMARKS, EDITED) else None
    return _draw(
        run, dataset, split, chosen, _shown(run, dataset, split, chosen, name, whole), columns, tile, keypoints
    )


class _Shown(NamedTuple):
    """Points of the N images of a sheet."""

    xy: NDArray[np.float32]
    """(N, L, 2), crop frame."""
    well: NDArray[np.float32]
    """(N, L), below `draw.HOLLOW_BELOW` where a point is drawn hollow."""
    marks: Marks
    """Labels, colours and edges of the points."""
    what: str
    """What they are, with their number, for the title."""


def _shown(
    run: Run,
    dataset: Dataset,
    split: str,
    chosen: NDArray[np.int64],
    name: str | None,
    whole: SplitLandmarks | None,
) -> _Shown:
    """Return the points of the chosen images.

    Args:
        run: The run, or an exported detector.
        dataset: Its dataset.
        split: The split.
        chosen: Indices of the images in the split.
        name: Of the set of points; None for an exported detector, which has its own.
        whole: The landmarks of the split; None: those of the chosen images are predicted.
    """
    edited = read_point_set(point_folder(run.folder, EDITED)) if name == EDITED else None
    if name in (LANDMARKS, EDITED):
        found = predict_images_of(run, dataset, split, chosen) if whole is None else whole
        seen = points_of(edited, found) if edited else found
        rows = slice(None) if whole is None else chosen
        marks, what = marks_of(edited, seen.xy.shape[1]), f"{seen.xy.shape[1]} landmarks"
        if edited:
            lost = np.flatnonzero((edited.shares == 0).all(axis=0)).tolist()
            without = f" (without {', '.join(map(str, lost))})" if lost else ""
            what = f"{len(edited)} points of {edited.landmarks} landmarks{without}"
        return _Shown(seen.xy[rows], seen_well(seen)[rows], marks, what)
    seen, layout = predict_images_of(run, dataset, split, chosen, name), landmark_predictor(run, name).layout
    return _Shown(seen.xy, seen_well(seen), marks_with(layout), f"{len(layout)} points{f' of {name}' if name else ''}")


def points_of(points: PointSet, landmarks: SplitLandmarks) -> SplitLandmarks:
    """Return the points of an edit, which are means of landmarks, in whatever frame these are."""
    seen = points.apply(Predicted(*landmarks), 1)
    return SplitLandmarks(seen.xy, seen.confidence, seen.probability)


def seen_well(landmarks: SplitLandmarks) -> NDArray[np.float32]:
    """Return how well landmarks are seen: (N, K), 1 where one is found and 0 where not.

    Without probabilities it is the confidence relative to the landmark's median.
    """
    relative = landmarks.confidence / np.median(landmarks.confidence, axis=0).clip(1e-6)
    found = found_of(landmarks.xy, landmarks.probability).astype(np.float32)
    return np.where(np.isnan(landmarks.probability), relative, found)


def _open(run: Run, split: str, count: int, tile: int) -> Dataset:
    for name, value, least in (("count", count, 1), ("tile", tile, 16)):
        if value < least:
            raise ConfigError(f"--{name} {value}: must be at least {least}")
    dataset = Dataset.open(run.config.dataset)
    if split not in dataset.manifest["splits"] or not dataset.count(split):
        raise DataError(f"{dataset.root}: has no {split} images; take --split {TRAIN}")
    return dataset


def choose_images(run: Run, dataset: Dataset, split: str, count: int) -> NDArray[np.int64]:
    """Return the indices of a seeded sample of a split's images, ascending."""
    return np.sort(np.random.default_rng(run.config.seed).permutation(dataset.count(split))[:count])


def _parts(dataset: Dataset, split: str, chosen: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the parts that hold chosen images, and their rows there."""
    starts = np.cumsum([0, *dataset.rows(split)])
    for part, first, last in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= first) & (chosen < last)] - first
        if len(rows):
            yield part, rows


def predict_images_of(
    run: Run, dataset: Dataset, split: str, chosen: NDArray[np.int64], points: str | None = LANDMARKS
) -> SplitLandmarks:
    """Return the landmarks of the chosen images, or other points of the run; an exported detector has its own."""
    config = run.resolved
    make = landmark_predictor(run, points if is_run(run) else None)
    predictor = replace(make, config=config)(worker_placement(config.compute))
    images = dataset.images(split)
    batches = (
        batch for part, rows in _parts(dataset, split, chosen) for batch in read_inputs(images, part, rows, config)
    )
    found = predict_batches(batches, predictor)
    return SplitLandmarks(np.stack(found.xy).astype(np.float32), found.confidence, found.probability)


def _draw(
    run: Run,
    dataset: Dataset,
    split: str,
    chosen: NDArray[np.int64],
    shown: _Shown,
    columns: int,
    tile: int,
    keypoints: bool,
) -> bytes:
    find = _generic_keypoints(run, dataset, split) if keypoints else None
    images, generic = [], []
    for part, rows in _parts(dataset, split, chosen):
        images += [decode_crop(e) for e in dataset.images(split).read_table(part, ["image"]).take(rows)["image"]]
        generic += find(part, rows) if find else []
    above = f"{run.config.keypoints.detector} keypoints (above) and " if keypoints else ""
    sheet = contact_sheet(
        images,
        list(shown.xy),
        confidence=list(shown.well),
        keypoints=generic if keypoints else None,
        columns=columns,
        tile=tile,
        title=f"{run.folder.name}: {above}{shown.what} on {len(images)} of {dataset.count(split)} {split} images",
        marks=shown.marks,
    )
    return encode_png(sheet)


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
