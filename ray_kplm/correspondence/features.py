"""Storage of features: parts of detected keypoints and their descriptors, as flat arrays and as Arrow files.

In the arrays the keypoints of all images of a part follow one another; `counts` has the number of each image. A part has the
name of its part of images; its file, an Arrow IPC file, has another ending. Readers ask for what they use, and read no other
bytes. Earlier versions wrote Parquet, which is read as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.correspondence.assignment import as_float32
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

_DESCRIPTORS = ("descriptors", "descriptors_flipped")


@dataclass(frozen=True)
class Keypoints:
    """The N keypoints of one part's images.

    Attributes:
        image_id: (images,).
        sizes: int32 (images, 2), width and height of each crop, pixels.
        counts: int64 (images,), keypoints of each image.
        usable: bool (N,), whether both descriptors of a keypoint are finite and not zero.
        xy: float32 (N, 2), crop frame.
        score: float32 (N,), larger is stronger.
    """

    image_id: pa.ChunkedArray
    sizes: NDArray[np.int32]
    counts: NDArray[np.int64]
    usable: NDArray[np.bool_]
    xy: NDArray[np.float32]
    score: NDArray[np.float32]

    @property
    def image(self) -> NDArray[np.int64]:
        """The image of each keypoint, as a row of the part: (N,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def xy_square(self) -> NDArray[np.float64]:
        """The keypoints' positions in the network's input, shares of its side: (N, 2)."""
        return coordinates.in_square(self.xy, self.sizes[self.image])


@dataclass(frozen=True)
class Features(Keypoints):
    """Keypoints and their descriptors.

    Attributes:
        descriptors: float16 (N, d), unit norm.
        descriptors_flipped: float16 (N, d), unit norm, descriptors of the same places in the mirrored image.
    """

    descriptors: NDArray[np.float16]
    descriptors_flipped: NDArray[np.float16]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays of keypoints, bytes."""
        return self.xy.nbytes + self.score.nbytes + self.descriptors.nbytes + self.descriptors_flipped.nbytes


class Counts(NamedTuple):
    """What a part holds.

    Attributes:
        counts: int64 (images,), keypoints of each image.
        usable: bool (N,), see `Keypoints`.
    """

    counts: NDArray[np.int64]
    usable: NDArray[np.bool_]


def has_descriptors(descriptors: NDArray[np.float16], flipped: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return the keypoints whose descriptors, (N, d), plain and of the mirror image, are finite and not zero: (N,)."""
    # The sum of magnitudes is NaN or infinite if an entry is.
    size = [np.abs(as_float32(side)).sum(axis=1) for side in (descriptors, flipped)]
    usable: NDArray[np.bool_] = np.isfinite(size[0]) & np.isfinite(size[1]) & (size[0] > 0) & (size[1] > 0)
    return usable


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
        ragged(has_descriptors(descriptors, descriptors_flipped), counts),
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


def write_features(folder: Folder, part: str, table: pa.Table) -> None:
    """Write one part of features, a `features_table`."""
    folder.write_arrow(file_of(part), table)


def file_of(part: str) -> str:
    """Return the name of the file that holds a part of features."""
    return f"{part.rsplit('.', 1)[0]}.arrow"


def feature_parts(folder: Folder) -> list[str]:
    """Return the sorted names of the parts of features in a folder, which are those of the parts of images."""
    stems = {name.rsplit(".", 1)[0] for name in folder.names() if name.startswith("part-")}
    return sorted(f"{stem}.parquet" for stem in stems)


def is_whole(folder: Folder, part: str) -> bool:
    """Return whether an interrupted step, maybe of an earlier version, wrote this part of features, and it can be used."""
    return folder.is_whole(file_of(part)) or folder.is_whole(part)


def read_features(folder: Folder, part: str) -> Features:
    """Read one part of features.

    Raises:
        DataError: The part is missing or of another schema. The message names the part.
        DamageError: The part is damaged.
    """
    table = _read(folder, part)
    return Features(
        **_keypoints(table),
        descriptors=_matrix(table, "descriptors"),
        descriptors_flipped=_matrix(table, "descriptors_flipped"),
    )


def read_keypoints(folder: Folder, part: str) -> Keypoints:
    """Read one part of features without the descriptors, which are nearly all of its bytes: see `read_features`."""
    return Keypoints(**_keypoints(_read(folder, part, [*schemas.KEYPOINTS.names, "usable", "width", "height"])))


def read_counts(folder: Folder, part: str) -> Counts:
    """Read the numbers of keypoints of one part of features, a bit of each keypoint: see `read_features`."""
    usable = _read(folder, part, ["usable"])["usable"]
    return Counts(_lengths(usable), _values(usable))


def read_descriptors(folder: Folder, part: str, *, mirrored: bool = True) -> list[NDArray[np.float16]]:
    """Read the descriptors (N, d) of one part of features, with `mirrored` those of the mirror images too.

    For the errors, see `read_features`.
    """
    names = _DESCRIPTORS if mirrored else _DESCRIPTORS[:1]
    table = _read(folder, part, names)
    return [_matrix(table, name) for name in names]


def read_columns(folder: Folder, part: str, columns: Sequence[str]) -> pa.Table:
    """Read columns of one part of features, or of keypoints without descriptors: see `read_features`."""
    try:
        return folder.read_arrow(file_of(part), columns)
    except FileNotFoundError:
        return folder.read_table(part, list(columns))


def _read(folder: Folder, part: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of features, by default all, in the order of the schema; see `read_features`."""
    try:
        table = folder.read_arrow(file_of(part), columns)
    except FileNotFoundError:
        whole = _read_parquet(folder, part)
        table = whole if columns is None else whole.select([name for name in whole.schema.names if name in columns])
    dim = _dim(table)
    schema = schemas.features_schema(dim)
    expected = [field for field in schema if columns is None or field.name in columns]
    if not dim or not table.schema.equals(pa.schema(expected)):
        raise _other_schema(folder, part, table)
    return table


def _read_parquet(folder: Folder, part: str) -> pa.Table:
    """Return a part that an earlier version wrote, with the column that it lacks."""
    try:
        table = folder.read_table(part)
    except FileNotFoundError:
        raise DataError(f"{folder}/{part}: no such features; delete the round's folder to redo it") from None
    dim = _dim(table)
    if "usable" in table.schema.names:
        return table
    if not dim or not table.schema.equals(schemas.earlier_features_schema(dim)):
        raise _other_schema(folder, part, table)
    usable = has_descriptors(*(_matrix(table, name) for name in _DESCRIPTORS))
    column = ragged(usable, _lengths(table["xy"]))
    return table.add_column(0, schemas.features_schema(dim).field("usable"), column)


def _other_schema(folder: Folder, part: str, table: pa.Table) -> DataError:
    return DataError(
        f"{folder}/{part}: columns {table.schema.names} are not those of features; delete the round's folder to redo it"
    )


def _dim(table: pa.Table) -> int:
    return int((table.schema.metadata or {}).get(b"descriptor_dim", 0))


def _keypoints(table: pa.Table) -> dict[str, Any]:
    """Return the fields of `Keypoints`."""
    return {
        "image_id": table["image_id"],
        "sizes": np.stack([table["width"].to_numpy(), table["height"].to_numpy()], axis=1),
        "counts": _lengths(table["xy"]),
        "usable": _values(table["usable"]),
        "xy": table["xy"].combine_chunks().flatten().flatten().to_numpy().reshape(-1, 2),
        "score": _values(table["score"]),
    }


def _matrix(table: pa.Table, name: str) -> NDArray[np.float16]:
    return _values(table[name]).reshape(-1, _dim(table))


def _lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = column.combine_chunks().value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return all values of a list column, row after row."""
    values: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
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
