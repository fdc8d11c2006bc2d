"""Stored images as a worker runs the network on them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import ComputeConfig, Config
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import decode_crop, letterbox
from ray_kplm.network.compute import Placement
from ray_kplm.storage import Folder


class Inputs(NamedTuple):
    """A batch of B images as the network sees them."""

    images: NDArray[np.uint8]
    """(B, S, S, 3)."""
    crop_to_input: list[coordinates.Affine]
    """The map of each image's points to the input."""
    ids: list[str]
    boxes: NDArray[np.float32]
    """(B, 4), x0, y0, x1, y1 of the object in the input frame, pixels; NaN where no box is known."""

    def mirrored(self, mirror: NDArray[np.bool_]) -> Inputs:
        """Return the batch with the mirror images of some images, bool (B,), in place of these."""
        last, images, boxes = self.images.shape[2] - 1, self.images.copy(), self.boxes.copy()
        images[mirror] = images[mirror, :, ::-1]
        boxes[mirror, ::2] = last - boxes[mirror, 2::-2]
        flip = coordinates.mirroring(last + 1)
        maps = [
            coordinates.compose(flip, affine) if turn else affine
            for affine, turn in zip(self.crop_to_input, mirror, strict=True)
        ]
        return Inputs(images, maps, self.ids, boxes)


def worker_placement(compute: ComputeConfig, device: torch.device | None = None) -> Placement:
    """Return where a worker in this process runs the network, and limit it to its share of the node's cores.

    Args:
        compute: layout of the run.
        device: of the network; by default a GPU if the worker reserves one.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.extract_workers))
    reserved = torch.device("cuda" if torch.cuda.is_available() and compute.gpus_per_worker else "cpu")
    return Placement.choose(compute, device or reserved)


def read_inputs(images: Folder, part: str, rows: NDArray[np.int64], config: Config) -> Iterator[Inputs]:
    """Yield batches of the chosen rows of a part."""
    yield from make_inputs(images.read_table(part, ["image_id", "image", "box"]), rows, config)


def make_inputs(
    table: pa.Table, rows: NDArray[np.int64], config: Config, threads: ThreadPoolExecutor | None = None
) -> Iterator[Inputs]:
    """Yield batches of the chosen rows of a table of images, decoded by threads if there are some."""
    size, batch = config.network.image_size, config.compute.batch_images
    spread = map if threads is None else threads.map
    for start in range(0, len(rows), batch):
        chosen = table.take(rows[start : start + batch])
        made = list(spread(lambda encoded: letterbox(decode_crop(encoded), size), chosen["image"]))
        affines = [affine for _, affine in made]
        boxes = [_box(box, affine) for box, affine in zip(chosen["box"].to_pylist(), affines, strict=True)]
        yield Inputs(np.stack([image for image, _ in made]), affines, chosen["image_id"].to_pylist(), np.stack(boxes))


def _box(box: Sequence[float] | None, crop_to_input: coordinates.Affine) -> NDArray[np.float32]:
    """Return a box of the crop frame in the input frame: (4,)."""
    if box is None:
        return np.full(4, np.nan, np.float32)
    return coordinates.apply(crop_to_input, np.reshape(box, (2, 2))).astype(np.float32).ravel()
