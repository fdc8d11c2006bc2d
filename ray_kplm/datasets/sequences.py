"""Sequences: images that are frames of one video, and their order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder


class Frames(NamedTuple):
    """The sequences of N images.

    Attributes:
        sequence: (N,), equal for frames of one sequence, NONE for an image of no sequence.
        frame: (N,), the frame's time in its sequence.
    """

    sequence: NDArray[np.int64]
    frame: NDArray[np.int64]


def read_frames(images: Folder, selection: Selection) -> Frames:
    """Read the sequences of a round's images, in its order, without reading pixels."""
    names, frames = [], []
    for whole, rows in zip(images.read_tables(selection.parts, ["sequence", "frame"]), selection.rows, strict=True):
        table = whole.take(rows)
        names.append(np.asarray(pc.fill_null(table["sequence"], "").to_pylist(), dtype=object))
        frames.append(pc.fill_null(table["frame"], 0).to_numpy())
    known, sequence = np.unique(np.concatenate(names).astype(str), return_inverse=True)
    sequence = np.where(known[sequence] == "", NONE, sequence).astype(np.int64)
    return Frames(sequence, np.concatenate(frames).astype(np.int64))
