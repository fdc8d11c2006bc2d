"""A synthetic object category with known landmarks, for the demonstration and the tests.

The object is a horned, bearded creature: an ellipsoid head with painted markings and parts that stand off it, in random
proportions, expression, coat, light and pose, in front of clutter. An image depends on its seed and index alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.imaging.synthetic.creature import (
    LANDMARK_NAMES,
    SWAP_PAIRS,
    View,
    draw_creature,
    draw_view,
    visible_landmarks,
)
from ray_kplm.imaging.synthetic.paint import draw_coat, paint
from ray_kplm.imaging.synthetic.scene import background, photograph

__all__ = ["LANDMARK_NAMES", "NORMALISER", "SWAP_PAIRS", "SyntheticImage", "render", "write_category"]

# The inter-ocular distance shrinks by more than a third at the largest turns; the bounding box varies less.
NORMALISER: dict[str, str] = {
    "type": "bbox_sqrt",
    "definition": "sqrt(w*h) of bbox, the bounding box of all landmarks, hidden ones included",
}

SUPERSAMPLING = 2
SMALLEST_SIDE = 32
MARK = 0.09  # x and y of the static mark, share of the side; few creatures reach so far into the corner
ROWS_PER_GROUP = 256
JPEG_QUALITY = 95
# Full chroma resolution: at this size the usual subsampling would blur markings of a few pixels.
JPEG_OPTIONS = [
    *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bbox", pa.list_(pa.float32())),
        ("landmarks", pa.list_(pa.list_(pa.float32()))),
        ("visible", pa.list_(pa.bool_())),
        ("group", pa.string()),
    ]
)


@dataclass(frozen=True)
class SyntheticImage:
    """One image and its annotation, in image pixels, pixel centres at integers.

    Attributes:
        image: (S, S, 3), RGB.
        landmarks: (L, 2), (x, y), finite for hidden landmarks too.
        visible: (L,).
        box: (4,), x0, y0, x1, y1 of all landmarks.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    visible: NDArray[np.bool_]
    box: NDArray[np.float32]


def render(seed: int, index: int, size: int = 96) -> SyntheticImage:
    """Render image number `index` of the category drawn with `seed`, a square of `size` pixels."""
    if size < SMALLEST_SIDE:
        raise ConfigError(f"size {size}: a creature needs {SMALLEST_SIDE} pixels or more; pass a larger size")
    if seed < 0 or index < 0:
        raise ConfigError(f"seed {seed}, index {index}: both start at 0; pass non-negative integers")
    rng = np.random.default_rng([seed, index])
    creature = draw_creature(rng)
    coat = draw_coat(rng)
    view = draw_view(rng, creature, size)
    canvas = background(rng, SUPERSAMPLING * size)
    paint(rng, canvas, creature, coat, on_canvas(view))
    xy = view.project(creature.landmarks()).astype(np.float32)
    box = np.concatenate([xy.min(0), xy.max(0)])
    return SyntheticImage(photograph(rng, canvas, size), xy, visible_landmarks(creature, view), box)


def on_canvas(view: View) -> View:
    """Return the view into the supersampled canvas: image pixel i covers canvas pixels F * i to F * i + F - 1."""
    factor = SUPERSAMPLING
    centre = factor * view.centre + (factor - 1) / 2
    return View(view.semi_axes, view.turn, view.taper, factor * view.roll, centre)


def write_category(
    folder: str | Path,
    images: int,
    *,
    test_share: float = 0.2,
    size: int = 96,
    seed: int = 0,
    mark: bool = False,
) -> None:
    """Write a dataset of the category: `train.parquet`, `test.parquet` and `dataset.json`.

    Every file is written to a temporary folder and renamed. `dataset.json` is the last one, so its presence means that the
    dataset is complete.

    Args:
        folder: Where the files go.
        images: Number of images, at least 2.
        test_share: Share of the images in the test split.
        size: Side of the images, pixels.
        seed: Seed of the images.
        mark: Whether every image has the same mark in the same corner, like a camera's label, and no boxes are written that
            would separate it from the object.
    """
    if images < 2:
        raise ConfigError(f"images {images}: training and test need one each; pass 2 or more")
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share {test_share}: must lie between 0 and 1, both excluded; 0.2 is usual")
    tests = min(max(1, round(images * test_share)), images - 1)
    splits = {"train": range(images - tests), "test": range(images - tests, images)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        for split, indices in splits.items():
            write_split(Path(temporary) / f"{split}.parquet", indices, size, seed, mark)
        description = describe({split: len(indices) for split, indices in splits.items()}, size, seed)
        if mark:
            description["notes"] += f"; a mark at {MARK * size:.0f}, {MARK * size:.0f}; no boxes"
        (Path(temporary) / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")
        # Without its description, a mixture of old and new files is not taken for a complete dataset.
        (folder / "dataset.json").unlink(missing_ok=True)
        for name in ("train.parquet", "test.parquet", "dataset.json"):
            os.replace(Path(temporary) / name, folder / name)


def write_split(path: Path, indices: range, size: int, seed: int, mark: bool) -> None:
    """Write one Parquet file, with one row group in memory at a time."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(indices), ROWS_PER_GROUP):
            part = indices[start : start + ROWS_PER_GROUP]
            writer.write_table(pa.Table.from_pylist(list(rows(part, size, seed, mark)), schema=SCHEMA))


def rows(indices: range, size: int, seed: int, mark: bool) -> Iterator[dict[str, Any]]:
    """Yield one row of the dataset for each index; every instance is a group of its own."""
    for index in indices:
        sample = render(seed, index, size)
        if mark:
            draw_mark(sample.image)
        name = f"creature_{seed}_{index:07d}"
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR), JPEG_OPTIONS)
        yield {
            "image_id": name,
            "image": encoded.tobytes(),
            "width": size,
            "height": size,
            "bbox": None if mark else sample.box.tolist(),
            "landmarks": sample.landmarks.tolist(),
            "visible": sample.visible.tolist(),
            "group": name,
        }


def draw_mark(image: NDArray[np.uint8]) -> None:
    """Draw the static mark, a disc in a ring."""
    side = len(image)
    centre = (round(MARK * side), round(MARK * side))
    for radius, shade in ((0.06, 20), (0.045, 235), (0.02, 20)):
        cv2.circle(image, centre, max(1, round(radius * side)), (shade, shade, shade), cv2.FILLED, cv2.LINE_AA)


def describe(counts: dict[str, int], size: int, seed: int) -> dict[str, Any]:
    """Return the content of `dataset.json`."""
    return {
        "name": f"synthetic_creature_{size}",
        "category": "synthetic horned creature",
        "landmark_names": list(LANDMARK_NAMES),
        "swap_pairs": [list(pair) for pair in SWAP_PAIRS],
        "nme": NORMALISER,
        "crop": "rendered as is: object 60 to 75 % of the side, wholly inside; bbox = landmark bounding box",
        "sources": [{"generator": "ray_kplm.imaging.synthetic", "seed": seed}],
        "licence": "generated; as this package",
        "split": "by index: the last images are the test; every image shows an instance of its own",
        "notes": "left is the image left in a frontal view",
        "n_train": counts["train"],
        "n_test": counts["test"],
        "n_landmarks": len(LANDMARK_NAMES),
        "image_size": size,
        "groups": {"train": counts["train"], "test": counts["test"], "shared": 0},
        "coordinates": f"image pixels, pixel centres at integers (0..{size - 1})",
        "visible_semantics": "True = visible; False with finite coordinates = hidden by the object itself",
        "columns": SCHEMA.names,
        "jpeg_quality": JPEG_QUALITY,
    }
