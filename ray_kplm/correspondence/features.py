"""Storage of features: parts of detected keypoints and their descriptors, as flat arrays and as Arrow tables.

In the arrays the keypoints of all images of a part follow one another; `counts` has the number of each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class Features:
    """The N keypoints of one part's images.

    Attributes:
        image_id: (images,).
        sizes: int32 (images, 2), width and height of each crop, pixels.
        counts: int64 (images,), keypoints of each image.
        xy: float32 (N, 2), crop frame.
        score: float32 (N,), larger is stronger.
        descriptors: float16 (N, d), unit norm.
        descriptors_flipped: float16 (N, d), unit norm, descriptors of the same places in the mirrored image.
    """

    image_id: pa.ChunkedArray
    sizes: NDArray[np.int32]
    counts: NDArray[np.int64]
    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptors: NDArray[np.float16]
    descriptors_flipped: NDArray[np.float16]

    @property
    def image(self) -> NDArray[np.int64]:
        """The image of each keypoint, as a row of the part: (N,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def xy_square(self) -> NDArray[np.float64]:
        """The keypoints' positions in the network's input, shares of its side: (N, 2)."""
        return coordinates.in_square(self.xy, self.sizes[self.image])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays of keypoints, bytes."""
        return self.xy.nbytes + self.score.nbytes + self.descriptors.nbytes + self.descriptors_flipped.nbytes


def features_table(
    image_ids: list[str],
    sizes: NDArray[Any],
    counts: NDArray[Any],
    xy: NDArray[Any],
    score: NDArray[Any],
    descriptors: NDArray[np.float16],
    descriptors_flipped: NDArray[np.float16],
) -> pa.Table:
    """Return the Arrow table (schemas.features_schema) of flat arrays as in `Features`."""
    dim = descriptors.shape[1]
    columns = [
        pa.array(image_ids, pa.string()),
        ragged_points(xy, counts),
        ragged(score.astype(np.float32), counts),
        *(pa.array(side.astype(np.int32)) for side in np.asarray(sizes).T),
        ragged(descriptors.ravel(), counts * dim),
        ragged(descriptors_flipped.ravel(), counts * dim),
    ]
    return pa.Table.from_arrays(columns, schema=schemas.features_schema(dim))


def keypoints_table(
    image_ids: Sequence[str] | pa.ChunkedArray, counts: NDArray[Any], xy: NDArray[Any], score: NDArray[Any]
) -> pa.Table:
    """Return the Arrow table (schemas.KEYPOINTS) of flat arrays as in `Features`."""
    ids = image_ids if isinstance(image_ids, pa.ChunkedArray) else pa.array(image_ids, pa.string())
    columns = [ids, ragged_points(xy, counts), ragged(np.asarray(score, np.float32), counts)]
    return pa.Table.from_arrays(columns, schema=schemas.KEYPOINTS)


def read_features(folder: Folder, part: str) -> Features:
    """Read one part of features.

    Raises:
        DataError: The part is missing or of another schema. The message names the part.
        DamageError: The part is damaged.
    """
    try:
        table = folder.read_table(part)
    except FileNotFoundError:
        raise DataError(f"{folder}/{part}: no such features; delete the round's folder to redo it") from None
    dim = int((table.schema.metadata or {}).get(b"descriptor_dim", 0))
    if not dim or not table.schema.equals(schemas.features_schema(dim)):
        raise DataError(
            f"{folder}/{part}: columns {table.schema.names} are not those of features; delete the round's folder to redo it"
        )
    column = table["xy"].combine_chunks()
    return Features(
        table["image_id"],
        np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
        column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64),
        column.flatten().flatten().to_numpy().reshape(-1, 2),
        _flat(table, "score"),
        _flat(table, "descriptors").reshape(-1, dim),
        _flat(table, "descriptors_flipped").reshape(-1, dim),
    )


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    """Return all values of a list column, row after row."""
    values: NDArray[Any] = table[name].combine_chunks().flatten().to_numpy()
    return values


def ragged(values: NDArray[Any], counts: NDArray[Any]) -> pa.ListArray:
    """Return a list column whose row i has the next `counts[i]` of the flat values."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values)))


def ragged_points(xy: NDArray[Any], counts: NDArray[Any]) -> pa.ListArray:
    """Return a list column of points whose row i has the next `counts[i]` of the points (N, 2)."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(xy, np.float32).ravel()), 2)
    return pa.ListArray.from_arrays(pa.array(offsets), pairs)
