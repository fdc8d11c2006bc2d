"""Images with a fault each, made from the renderer's objects and scenes, and datasets of them, written without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import Dataset, PartBuilder
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import encode_png
from ray_kplm.imaging.synthetic.category import render
from ray_kplm.imaging.synthetic.meadow import draw_meadow
from ray_kplm.imaging.synthetic.scene import background, photograph
from ray_kplm.storage import Folder

Picture = NDArray[np.uint8]
Boxes = Sequence[NDArray[np.floating]]


def write_dataset(
    folder: Path, train: Sequence[Picture], test: Sequence[Picture] = (), boxes: Boxes | None = None
) -> Dataset:
    """Write a complete dataset of images, in parts of 100; boxes are those of the training images."""
    root, splits = Folder.at(folder), {}
    for split, images in {"train": train, "test": test}.items():
        entry = {"images": len(images), "parts": [], "rows": []}
        for start in range(0, len(images), 100):
            part, name = PartBuilder(0), f"part-{start // 100:05d}.parquet"
            for index, image in enumerate(images[start : start + 100], start):
                box = boxes[index] if boxes is not None and split == "train" else None
                part.add(f"{split}/{index}", encode_png(image), image, box, coordinates.translation(0, 0))
            (root / split / "images").write_table(name, part.tables().images)
            entry["parts"].append(name)
            entry["rows"].append(len(images[start : start + 100]))
        if images:
            splits[split] = entry
    root.write_json("dataset.json", {"name": folder.name})
    root.write_json("manifest.json", {"kind": "dataset", "fingerprint": "made", "landmarks": 0, "splits": splits})
    return Dataset.open(folder)


def objects(count: int, seed: int = 0, size: int = 96, kind: str = "creature") -> tuple[list[Picture], Boxes]:
    """Return images of one object each, with their boxes: the clean twin of all faults."""
    rendered = [render(seed, index, size, kind=kind) for index in range(count)]
    return [one.image for one in rendered], [one.box for one in rendered]


def landscapes(count: int, size: int = 96) -> list[Picture]:
    """Return meadows without an animal."""
    made = []
    for index in range(count):
        rng = np.random.default_rng([7, index])
        made.append(photograph(rng, draw_meadow(rng, 2 * size, rng.uniform(0.6, 0.95) * 2 * size), size))
    return made


def several(count: int, number: int = 5, size: int = 192, kind: str = "creature") -> list[Picture]:
    """Return images of several small objects at random places that do not overlap."""
    made = []
    for index in range(count):
        rng = np.random.default_rng([9, index])
        canvas = background(rng, 2 * size) if kind == "creature" else draw_meadow(rng, 2 * size, 1.8 * size)
        image, taken = photograph(rng, canvas, size), []
        for other in range(number):
            _paste(rng, image, number * index + other, rng.uniform(0.28, 0.36), taken, kind)
        made.append(image)
    return made


def small_objects(count: int, share: float = 0.2, size: int = 192) -> list[Picture]:
    """Return images of one small object anywhere."""
    made = []
    for index in range(count):
        rng = np.random.default_rng([19, index])
        image = photograph(rng, background(rng, 2 * size), size)
        _paste(rng, image, index, share, [], "creature")
        made.append(image)
    return made


def still_camera(count: int, size: int = 128) -> list[Picture]:
    """Return images of objects that move in front of one background, with another exposure and noise in each."""
    scene, made = np.random.default_rng(5), []
    behind = photograph(scene, background(scene, 2 * size), size)
    for index in range(count):
        rng, image = np.random.default_rng([10, index]), behind.copy()
        _paste(rng, image, index, 0.45, [], "creature")
        exposed = image * rng.uniform(0.9, 1.1) + rng.normal(0, 3, image.shape)
        made.append(np.clip(exposed, 0, 255).astype(np.uint8))
    return made


def blurred(images: Sequence[Picture], sigma: float = 5.0) -> list[Picture]:
    """Return blurred images."""
    return [cv2.GaussianBlur(image, (0, 0), sigma) for image in images]


def scaled(images: Sequence[Picture], side: int) -> list[Picture]:
    """Return images of another side, pixels."""
    return [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]


_POOL = 60
"""Different objects that are pasted."""


@cache
def _object(index: int, kind: str) -> Picture:
    """Return one rendered object, cut out by its box."""
    one = render(11, index, 96, kind=kind)
    x0, y0, x1, y1 = one.box.astype(int).tolist()
    return one.image[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2]


def _paste(
    rng: np.random.Generator, image: Picture, index: int, share: float, taken: list[list[int]], kind: str
) -> None:
    """Paste a rendered object, `share` of the side large, where it covers none of the others (x0, y0, x1, y1)."""
    cut, side = _object(index % _POOL, kind), len(image)
    scale = side * share / max(cut.shape[:2])
    cut = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = cut.shape[:2]
    for _ in range(200):
        x, y = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
        if all(x + width <= a or c <= x or y + height <= b or d <= y for a, b, c, d in taken):
            taken.append([x, y, x + width, y + height])
            image[y : y + height, x : x + width] = cut
            return
