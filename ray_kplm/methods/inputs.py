"""Stored images as a worker runs the network on them."""

from __future__ import annotations

import os
from collections.abc import Iterator

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

Inputs = tuple[NDArray[np.uint8], list[coordinates.Affine], list[str]]
"""A batch: inputs uint8 (B, S, S, 3), the map crop -> input of each, the image ids."""


def worker_placement(compute: ComputeConfig) -> Placement:
    """Return where a worker in this process runs the network, and limit it to its share of the node's cores."""
    cv2.setNumThreads(1)
    torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.extract_workers))
    return Placement.choose(
        compute, torch.device("cuda" if torch.cuda.is_available() and compute.gpus_per_worker else "cpu")
    )


def read_inputs(images: Folder, part: str, rows: NDArray[np.int64], config: Config) -> Iterator[Inputs]:
    """Yield batches of the chosen rows of a part."""
    yield from make_inputs(images.read_table(part, ["image_id", "image"]), rows, config)


def make_inputs(table: pa.Table, rows: NDArray[np.int64], config: Config) -> Iterator[Inputs]:
    """Yield batches of the chosen rows of a table of images."""
    size, batch = config.network.image_size, config.compute.batch_images
    for start in range(0, len(rows), batch):
        chosen = table.take(rows[start : start + batch])
        made = [letterbox(decode_crop(encoded), size) for encoded in chosen["image"]]
        yield np.stack([image for image, _ in made]), [affine for _, affine in made], chosen["image_id"].to_pylist()
