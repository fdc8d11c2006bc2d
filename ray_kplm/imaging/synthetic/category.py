"""Synthetic object categories with known landmarks, for the demonstration and the tests.

`creature` is a horned, bearded head: an ellipsoid with painted markings and parts that stand off it, in random proportions,
expression, coat, light and pose, in front of clutter. `profile` is a four-legged animal seen from the side, in a meadow; half
of the animals face left. An image depends on its kind, seed and index alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.imaging.synthetic import animal
from ray_kplm.imaging.synthetic.creature import (
    LANDMARK_NAMES,
    SWAP_PAIRS,
    Floats,
    View,
    draw_creature,
    draw_view,
    visible_landmarks,
)
from ray_kplm.imaging.synthetic.kinds import DEFAULT, KINDS
from ray_kplm.imaging.synthetic.marks import (
    MARK,
    MARK_RADIUS,
    check_marks,
    draw_background_marks,
    draw_mark,
    mark_centres,
)
from ray_kplm.imaging.synthetic.paint import draw_coat, paint
from ray_kplm.imaging.synthetic.profile import paint_profile
from ray_kplm.imaging.synthetic.scene import SUPERSAMPLING, Image, background, canvas_pixels, photograph

__all__ = ["LANDMARK_NAMES", "NORMALISER", "SWAP_PAIRS", "SyntheticImage", "render", "write_category"]

# The inter-ocular distance shrinks by more than a third at the largest turns; the bounding box varies less.
NORMALISER: dict[str, str] = {
    "type": "bbox_sqrt",
    "definition": "sqrt(w*h) of bbox, the bounding box of all landmarks, hidden ones included",
}

LICENCE = "generated; as this package"
"""Of rendered images: by it a dataset is known as one of them."""
SMALLEST_SIDE = 32
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


class Category(NamedTuple):
    """What distinguishes the kinds of categories.

    Attributes:
        paint: Takes the generator, the side of the image and the centres (M, 2) of the background marks, image pixels; returns
            the canvas, the landmarks (L, 2) in image pixels, and which are visible, (L,).
        title: Of the object.
        landmark_names: L names.
        swap_pairs: Pairs of landmarks that change places in the mirror image.
        crop: How much of the image the object takes.
        notes: What the names mean.
    """

    paint: Callable[[np.random.Generator, int, Floats], tuple[Image, NDArray[np.float32], NDArray[np.bool_]]]
    title: str
    landmark_names: tuple[str, ...]
    swap_pairs: tuple[tuple[int, int], ...]
    crop: str
    notes: str


def category_of(kind: str) -> Category:
    """Return the category of a kind.

    Raises:
        ConfigError: There is no such kind.
    """
    match kind:
        case "creature":
            return Category(
                paint_creature,
                "synthetic horned creature",
                LANDMARK_NAMES,
                SWAP_PAIRS,
                "rendered as is: object 60 to 75 % of the side, wholly inside; bbox = landmark bounding box",
                "left is the image left in a frontal view",
            )
        case "profile":
            return Category(
                paint_profile,
                "synthetic four-legged animal seen from the side",
                animal.LANDMARK_NAMES,
                (),
                "rendered as is: object 66 to 88 % of the side, wholly inside; bbox = landmark bounding box",
                "half of the animals face left; near is the side that the viewer sees, so landmarks keep their names in the "
                "mirror image",
            )
    raise ConfigError(f"kind {kind!r}: there is no such synthetic category; choose from {', '.join(KINDS)}")


def render(seed: int, index: int, size: int = 96, *, kind: str = DEFAULT, background_marks: int = 0) -> SyntheticImage:
    """Render one image of a category.

    Args:
        seed: Of the category's instances.
        index: Number of the image.
        size: Side of the image, pixels.
        kind: A name of `kinds.KINDS`.
        background_marks: Number of marks at the fixed places of `marks.PLACES`, behind the object. The rest of the image does
            not depend on it.
    """
    if size < SMALLEST_SIDE:
        raise ConfigError(f"size {size}: an object needs {SMALLEST_SIDE} pixels or more; pass a larger size")
    if seed < 0 or index < 0:
        raise ConfigError(f"seed {seed}, index {index}: both start at 0; pass non-negative integers")
    rng = np.random.default_rng([seed, index])
    canvas, xy, visible = category_of(kind).paint(rng, size, mark_centres(background_marks, size))
    box = np.concatenate([xy.min(0), xy.max(0)])
    return SyntheticImage(photograph(rng, canvas, size), xy, visible, box)


def paint_creature(
    rng: np.random.Generator, size: int, marks: Floats
) -> tuple[Image, NDArray[np.float32], NDArray[np.bool_]]:
    """Paint one creature; see `Category.paint`."""
    creature = draw_creature(rng)
    coat = draw_coat(rng)
    view = draw_view(rng, creature, size)
    canvas = background(rng, SUPERSAMPLING * size)
    draw_background_marks(canvas, canvas_pixels(marks))
    paint(rng, canvas, creature, coat, on_canvas(view))
    return canvas, view.project(creature.landmarks()).astype(np.float32), visible_landmarks(creature, view)


def on_canvas(view: View) -> View:
    """Return the view into the supersampled canvas."""
    return View(view.semi_axes, view.turn, view.taper, SUPERSAMPLING * view.roll, canvas_pixels(view.centre))


@dataclass(frozen=True)
class Settings:
    """What the images of a dataset have in common; see `write_category`."""

    kind: str
    size: int
    seed: int
    mark: bool
    background_marks: int
    boxes: bool


def write_category(
    folder: str | Path,
    images: int,
    *,
    kind: str = DEFAULT,
    test_share: float = 0.2,
    size: int = 96,
    seed: int = 0,
    mark: bool = False,
    background_marks: int = 0,
    boxes: bool = True,
) -> None:
    """Write a dataset of a category: `train.parquet`, `test.parquet` and `dataset.json`.

    Every file is written to a temporary folder and renamed. `dataset.json` is the last one, so its presence means that the
    dataset is complete. It has the centres of background marks as `background_marks`.

    Args:
        folder: Where the files go.
        images: Number of images, at least 2.
        kind: A name of `kinds.KINDS`.
        test_share: Share of the images in the test split.
        size: Side of the images, pixels.
        seed: Seed of the images.
        mark: Whether every image has the same mark in the same corner, like a camera's label, and no boxes are written that
            would separate it from the object.
        background_marks: Number of different marks, each at the same place of every image, behind the object; at most 10.
        boxes: Whether the boxes of the objects are written.
    """
    if images < 2:
        raise ConfigError(f"images {images}: training and test need one each; pass 2 or more")
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share {test_share}: must lie between 0 and 1, both excluded; 0.2 is usual")
    category_of(kind)
    check_marks(background_marks)
    settings = Settings(kind, size, seed, mark, background_marks, boxes and not mark)
    tests = min(max(1, round(images * test_share)), images - 1)
    splits = {"train": range(images - tests), "test": range(images - tests, images)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
        for split, indices in splits.items():
            write_split(Path(temporary) / f"{split}.parquet", indices, settings)
        description = describe({split: len(indices) for split, indices in splits.items()}, settings)
        (Path(temporary) / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")
        # Without its description, a mixture of old and new files is not taken for a complete dataset.
        (folder / "dataset.json").unlink(missing_ok=True)
        for name in ("train.parquet", "test.parquet", "dataset.json"):
            os.replace(Path(temporary) / name, folder / name)


def write_split(path: Path, indices: range, settings: Settings) -> None:
    """Write one Parquet file, with one row group in memory at a time."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(indices), ROWS_PER_GROUP):
            part = indices[start : start + ROWS_PER_GROUP]
            writer.write_table(pa.Table.from_pylist(list(rows(part, settings)), schema=SCHEMA))


def rows(indices: range, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield one row of the dataset for each index; every instance is a group of its own."""
    size, seed, kind = settings.size, settings.seed, settings.kind
    for index in indices:
        sample = render(seed, index, size, kind=kind, background_marks=settings.background_marks)
        if settings.mark:
            draw_mark(sample.image)
        name = f"{kind}_{seed}_{index:07d}"
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR), JPEG_OPTIONS)
        yield {
            "image_id": name,
            "image": encoded.tobytes(),
            "width": size,
            "height": size,
            "bbox": sample.box.tolist() if settings.boxes else None,
            "landmarks": sample.landmarks.tolist(),
            "visible": sample.visible.tolist(),
            "group": name,
        }


def describe(counts: dict[str, int], settings: Settings) -> dict[str, Any]:
    """Return the content of `dataset.json`."""
    category, size = category_of(settings.kind), settings.size
    notes, marks = category.notes, {}
    if settings.mark:
        notes += f"; a mark at {MARK * size:.0f}, {MARK * size:.0f}"
    if not settings.boxes:
        notes += "; no boxes"
    if settings.background_marks:
        centres = mark_centres(settings.background_marks, size)
        marks["background_marks"] = {"centres": centres.round(3).tolist(), "radius": round(MARK_RADIUS * size, 3)}
    return {
        "name": f"synthetic_{settings.kind}_{size}",
        "category": category.title,
        "landmark_names": list(category.landmark_names),
        "swap_pairs": [list(pair) for pair in category.swap_pairs],
        "nme": NORMALISER,
        "crop": category.crop,
        "sources": [{"generator": "ray_kplm.imaging.synthetic", "seed": settings.seed}],
        "licence": LICENCE,
        "split": "by index: the last images are the test; every image shows an instance of its own",
        "notes": notes,
        "n_train": counts["train"],
        "n_test": counts["test"],
        "n_landmarks": len(category.landmark_names),
        "image_size": size,
        "groups": {"train": counts["train"], "test": counts["test"], "shared": 0},
        "coordinates": f"image pixels, pixel centres at integers (0..{size - 1})",
        "visible_semantics": "True = visible; False with finite coordinates = hidden by the object itself",
        "columns": SCHEMA.names,
        "jpeg_quality": JPEG_QUALITY,
        **marks,
    }
