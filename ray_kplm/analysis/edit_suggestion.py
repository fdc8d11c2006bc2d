"""A `points.yaml` to begin with, and a picture of the landmarks' numbers, from the images of a run: `kplm edit --suggest`."""

from __future__ import annotations

import posixpath

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.contact_sheet import choose_images, predict_images_of, seen_well
from ray_kplm.analysis.edit import flip_map_of
from ray_kplm.analysis.predictions import stored_landmarks_of
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import DataError, StorageError
from ray_kplm.imaging.coordinates import in_square
from ray_kplm.imaging.crops import crop_sizes, decode_crop
from ray_kplm.imaging.draw import HOLLOW_BELOW, Marks, contact_sheet, encode_png
from ray_kplm.inference.dataset import SplitLandmarks
from ray_kplm.methods.facing import FACING
from ray_kplm.methods.visibility import found_of
from ray_kplm.points.suggested_file import suggested_file
from ray_kplm.points.suggestion import Suggestion, suggest
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Run
from ray_kplm.schemas import NONE, TEST, TRAIN
from ray_kplm.storage import Folder

SAMPLE = 300
"""Images that are looked at where the run holds no landmarks yet."""
_SHOWN, _COLUMNS, _TILE = 12, 4, 288
"""Images in the picture, and in a row of it; their side, pixels."""


def picture_file(file: str) -> str:
    """Return the path of the picture beside a file."""
    return f"{posixpath.splitext(file)[0]}.png"


def check_new(file: str) -> None:
    """Raise StorageError if the file or its picture exists."""
    for path in (file, picture_file(file)):
        if Folder.at(path).exists():
            raise StorageError(f"{path}: exists, and may be edited; give another name, or --force to replace it")


def write_suggestion(run: Run, file: str, progress: ProgressCallback = ignore_progress) -> Suggestion:
    """Write what the images of a run say about its points to a file, with a picture beside it.

    The landmarks are those that the run holds of its test and training images. If it holds none, those of a sample are
    predicted in this process.

    Raises:
        DataError: The dataset has no images.
        RunError: The run is not finished.
    """
    dataset = Dataset.open(run.config.dataset)
    splits = [split for split in (TEST, TRAIN) if split in dataset.manifest["splits"] and dataset.count(split)]
    if not splits:
        raise DataError(f"{dataset.root}: has no images to look at")
    stored = {split: landmarks for split in splits if (landmarks := stored_landmarks_of(run, dataset, split))}
    seen = [(landmarks, _sizes(dataset, split)) for split, landmarks in stored.items()]
    chosen = choose_images(run, dataset, splits[0], _SHOWN if stored else SAMPLE)
    progress(0.0, f"looking at the landmarks of {'the images' if stored else f'{len(chosen)} images'}")
    if splits[0] in stored:
        drawn = SplitLandmarks(*(values[chosen] for values in stored[splits[0]]))
    else:
        drawn = predict_images_of(run, dataset, splits[0], chosen)
    if not seen:
        seen, chosen = [(drawn, _sizes(dataset, splits[0])[chosen])], chosen[:_SHOWN]
    found = _suggestion(run, seen)
    at, picture = Folder.at(file), Folder.at(picture_file(file))
    sheet = _sheet(dataset, splits[0], chosen, SplitLandmarks(*(values[:_SHOWN] for values in drawn)), found)
    picture.parent.write_bytes(picture.name, sheet)
    text = suggested_file(found, str(run.folder), file, picture.name)
    at.parent.write_bytes(at.name, text.encode())
    progress(1.0, f"{file} is written")
    return found


def _suggestion(run: Run, seen: list[tuple[SplitLandmarks, NDArray[np.int64]]]) -> Suggestion:
    places = np.concatenate([in_square(landmarks.xy, sizes[:, None]) for landmarks, sizes in seen])
    found = np.concatenate([found_of(landmarks.xy, landmarks.probability) for landmarks, _ in seen])
    probability = np.concatenate([landmarks.probability for landmarks, _ in seen])
    facing, folder = run.manifest(FACING), run.folder / "evaluation"
    flip_map = flip_map_of(run)
    if facing is not None and facing.get("mirror") == "facing":  # a landmark is the same part in the mirror image
        flip_map = [NONE] * len(flip_map)
    quality = folder.read_object("quality.json") if folder.is_file("quality.json") else None
    return suggest(places, found, probability, flip_map, quality)


def _sizes(dataset: Dataset, split: str) -> NDArray[np.int64]:
    columns = dataset.images(split).read_tables(dataset.parts(split), ["width", "height"])
    return np.concatenate([crop_sizes(table) for table in columns])


def _sheet(
    dataset: Dataset, split: str, chosen: NDArray[np.int64], landmarks: SplitLandmarks, found: Suggestion
) -> bytes:
    """Return the picture: some images with the landmarks, their numbers and the edges, as PNG."""
    starts, images = np.cumsum([0, *dataset.rows(split)]), []
    for part, first, last in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= first) & (chosen < last)] - first
        if len(rows):
            encoded = dataset.images(split).read_table(part, ["image"]).take(rows)["image"]
            images += [decode_crop(one) for one in encoded]
    is_found = found_of(landmarks.xy, landmarks.probability) & (seen_well(landmarks) >= HOLLOW_BELOW)
    marks = Marks.numbered(landmarks.xy.shape[1], found.edges, beside=True)
    sheet = contact_sheet(
        images,
        list(landmarks.xy),
        confidence=list(is_found.astype(np.float32)),
        columns=_COLUMNS,
        tile=_TILE,
        title=f"Numbers of the landmarks on {len(images)} images, and the pairs that move together",
        marks=marks,
    )
    return encode_png(sheet)
