"""A dataset: what a source promises (`Listing`), how one part of it is built, and how the finished one is opened.

<dataset>/dataset.json                              what it shows; written first
<dataset>/<split>/images/part-00000.parquet         schemas.IMAGES
<dataset>/<split>/landmarks/part-00000.parquet      schemas.LANDMARKS, if annotated; the same rows
<dataset>/rejected.parquet                          schemas.REJECTED
<dataset>/manifest.json                             written last: the dataset is whole
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.datasets.registry import AUTO
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging.coordinates import Affine
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.storage import Folder


@dataclass(frozen=True)
class IngestOptions:
    """How a source becomes a dataset."""

    format: str = AUTO
    """A data set in its authors' layout, of `formats.FORMATS`; auto: Parquet files or a folder of images."""
    boxes: str | None = None
    """CSV or Parquet: image (path below the source), x0, y0, x1, y1 in pixels of the upright image. For a folder."""
    landmarks: str | None = None
    """Parquet: image, landmarks (L x 2, the same pixels), optional visible, group. For the evaluation; for a folder."""
    sequences: str | None = None
    """CSV or Parquet: image, sequence, frame. Images that are frames of videos; for a folder."""
    margin: float = 0.2
    """Kept around a box on each side, a fraction of its longer side."""
    size: int = 256
    """Longest side of a stored picture, px; larger ones are scaled down. Parquet sources are stored as they are."""
    test_share: float = 0.1
    """Share of the images drawn for the test split, where the source gives no splits."""
    part_images: int = 512
    """Source images per part: the unit of retry, of resume and of memory."""
    min_side: int = 32
    """Pictures whose shorter side, as stored, is below this many px are rejected."""
    seed: int = 0
    """Draws the splits."""
    workers: int | None = None
    """Parts built at the same time; none: one for each CPU of the cluster."""

    def __post_init__(self) -> None:
        rules = {
            f"margin {self.margin} must be at least 0": self.margin >= 0,
            f"min_side {self.min_side} must be at least 1 px": self.min_side >= 1,
            f"size {self.size} must be at least min_side ({self.min_side} px)": self.size >= self.min_side,
            f"test_share {self.test_share} must be in 0 <= share < 1": 0 <= self.test_share < 1,
            f"part_images {self.part_images} must be at least 1": self.part_images >= 1,
            f"workers {self.workers} must be at least 1": self.workers is None or self.workers >= 1,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ConfigError(f"ingest: {rule}")


class PartTables(NamedTuple):
    """One part: rows of `images` and of `landmarks` are the same images in the same order."""

    images: pa.Table
    landmarks: pa.Table | None
    rejected: pa.Table


@dataclass(frozen=True)
class Listing:
    """A source, listed: which entries belong to which split, and how some of them are read."""

    splits: dict[str, list[Any]]
    """Entries in a fixed order; what an entry is, only `read_part` knows."""
    read_part: Callable[[Sequence[Any]], PartTables]
    """Pure: the same entries give the same tables. Picklable."""
    identity: str
    """Hash of the source's content, as far as it can be told without decoding it."""
    meta: dict[str, Any]
    """name, landmark_names, swap_pairs, nme, licence, as far as the source states them."""
    landmarks: int
    """Annotated landmarks an image; 0: none."""
    sequences: bool
    """Whether images are frames of videos."""
    rejected: list[tuple[str, str]]
    """(source, reason) of what is refused without a look at the pixels."""
    other_files: int = 0
    """Files that are no images."""


def split_of(key: str, options: IngestOptions) -> str:
    """The split of an image (or of a group) by a seeded hash: it depends on no other image."""
    digest = hashlib.sha256(f"{options.seed}:{key}".encode()).digest()
    return schemas.TEST if int.from_bytes(digest[:8], "big") < options.test_share * 2**64 else schemas.TRAIN


def count_landmarks(name: str, columns: Iterable[pa.Array]) -> int:
    """The one number of landmarks that all annotated rows have; `columns` are slices of a list<list<float>> column."""
    counts: set[int | None] = set()
    pairs: set[int | None] = set()
    for column in columns:
        try:
            counts.update(pc.unique(pc.list_value_length(column)).to_pylist())
            pairs.update(pc.unique(pc.list_value_length(pc.list_flatten(column))).to_pylist())
        except pa.ArrowException:
            raise DataError(f"{name}: landmarks must be lists of pairs x, y, but are {column.type}") from None
    found = sorted(count for count in counts if count)
    if len(found) != 1:
        raise DataError(f"{name}: every image must have the same number of landmarks, found {found or 'none'}")
    if pairs != {2}:
        raise DataError(f"{name}: every landmark must be a pair x, y; NaN, NaN where it is not annotated")
    return found[0]


ANNOTATION = frozenset(
    {"image_id", "image", "width", "height", "bbox", "landmarks", "visible", "group", "sequence", "frame"}
)
"""Columns with a meaning. Other numbers of an annotated image travel along as attributes, to bucket the evaluation by."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class PartBuilder:
    """Collects the rows of one part."""

    def __init__(self, landmarks: int) -> None:
        self._count = landmarks
        self._images: list[dict[str, Any]] = []
        self._landmarks: list[dict[str, Any]] = []
        self._rejected: list[dict[str, str]] = []

    def reject(self, source: str, reason: str) -> None:
        self._rejected.append({"source": source, "reason": reason})

    def add(
        self,
        image_id: str,
        image: bytes,
        rgb: NDArray[np.uint8],
        box: NDArray | None,
        crop_to_source: Affine,
        annotation: dict[str, Any] | None = None,
        frame: tuple[str, int] | None = None,
    ) -> None:
        """One image. `box` (4,) and `annotation["landmarks"]` (L, 2) are in the crop frame; no annotation: all NaN.

        `frame`: its sequence and its time there.
        """
        height, width = rgb.shape[:2]
        if self._count:
            self._landmarks.append({"image_id": image_id, **self._annotation(annotation or {})})
        self._images.append(
            {
                "image_id": image_id,
                "image": image,
                "width": width,
                "height": height,
                "box": None if box is None else box.tolist(),
                "crop_to_source": crop_to_source.ravel().tolist(),
                "sequence": frame and frame[0],
                "frame": frame and frame[1],
            }
        )

    def _annotation(self, given: dict[str, Any]) -> dict[str, Any]:
        points = np.full((self._count, 2), np.nan, dtype=np.float32)
        if given.get("landmarks") is not None and len(given["landmarks"]):
            points[:] = given["landmarks"]
        visible = given.get("visible") or [True] * self._count
        if len(visible) != self._count:
            raise DataError(f"bad annotation: {len(visible)} values of visible for {self._count} landmarks")
        visible = [bool(seen) and not np.isnan(point).any() for seen, point in zip(visible, points, strict=True)]
        numbers = [(name, given[name]) for name in sorted(given.keys() - ANNOTATION) if _is_number(given[name])]
        return {"landmarks": points.tolist(), "visible": visible, "group": given.get("group"), "attributes": numbers}

    def tables(self) -> PartTables:
        landmarks = pa.Table.from_pylist(self._landmarks, schema=schemas.LANDMARKS) if self._count else None
        return PartTables(
            pa.Table.from_pylist(self._images, schema=schemas.IMAGES),
            landmarks,
            pa.Table.from_pylist(self._rejected, schema=schemas.REJECTED),
        )


@dataclass(frozen=True)
class Dataset:
    """A finished dataset on storage."""

    root: Folder
    manifest: dict[str, Any] = field(repr=False, hash=False)
    meta: dict[str, Any] = field(repr=False, hash=False)
    """name, landmark_names, swap_pairs, nme, licence, source."""

    @classmethod
    def open(cls, uri: str | os.PathLike[str] | Folder) -> Dataset:
        root = uri if isinstance(uri, Folder) else Folder.at(uri)
        if not root.is_file("manifest.json"):
            raise DataError(f"{root} is no finished dataset (it has no manifest.json); run `kplm ingest SOURCE {root}`")
        manifest = root.read_json("manifest.json")
        if manifest.get("kind") != "dataset":
            raise DataError(f"{root} is no dataset but holds the manifest of {manifest.get('kind')!r}")
        return cls(root, manifest, root.read_json("dataset.json"))

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def has_landmarks(self) -> bool:
        return self.manifest["landmarks"] > 0

    @property
    def has_sequences(self) -> bool:
        """Whether images are frames of videos."""
        return self.manifest.get("sequences", False)

    def images(self, split: str) -> Folder:
        """The folder of the split's image parts."""
        return self.root / split / "images"

    def landmarks(self, split: str) -> Folder:
        """The folder of the split's landmark parts, named like the image parts."""
        return self.root / split / "landmarks"

    def parts(self, split: str) -> list[str]:
        """Names of the split's parts."""
        return list(self._split(split)["parts"])

    def rows(self, split: str) -> list[int]:
        """Images in each part, in the order of `parts`."""
        return list(self._split(split)["rows"])

    def count(self, split: str) -> int:
        """Images in the split."""
        return self._split(split)["images"]

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.manifest["splits"]:
            raise DataError(f"{self.root} has no split {split!r}; it has {', '.join(self.manifest['splits'])}")
        return self.manifest["splits"][split]


class LandmarkArrays(NamedTuple):
    """The annotation of a split, one row an image, crop frame."""

    ids: list[str]
    landmarks: NDArray[np.float32]  # (N, L, 2); NaN: not annotated
    boxes: NDArray[np.float32]  # (N, 4) x0, y0, x1, y1; NaN: not given
    sizes: NDArray[np.int32]  # (N, 2) width, height, px
    visible: NDArray[np.bool_]  # (N, L); an annotated point that is hidden is not
    attributes: dict[str, NDArray[np.float64]]  # (N,) each; NaN: not given


def landmark_arrays(dataset: Dataset, split: str) -> LandmarkArrays:
    """All landmarks of a split, for the evaluation. Reads no pixels."""
    if not dataset.has_landmarks:
        raise DataError(f"{dataset.root} has no landmarks to evaluate against; ingest it with --landmarks FILE")
    count = dataset.manifest["landmarks"]
    ids: list[str] = []
    landmarks = [np.empty((0, count, 2), np.float32)]
    boxes = [np.empty((0, 4), np.float32)]
    sizes = [np.empty((0, 2), np.int32)]
    visible = [np.empty((0, count), bool)]
    given: list[dict[str, float]] = []
    for part in dataset.parts(split):
        images = dataset.images(split).read_table(part, ["image_id", "width", "height", "box"])
        points = dataset.landmarks(split).read_table(part)
        assert images["image_id"].equals(points["image_id"]), f"{split}/{part}: images and landmarks differ"
        ids += images["image_id"].to_pylist()
        flat = pc.list_flatten(pc.list_flatten(points["landmarks"])).to_numpy()
        landmarks.append(flat.reshape(-1, count, 2))
        boxes.append(np.array([box or [np.nan] * 4 for box in images["box"].to_pylist()], np.float32).reshape(-1, 4))
        sizes.append(crop_sizes(images))
        visible.append(pc.list_flatten(points["visible"]).to_numpy().reshape(-1, count))
        given += [dict(row) for row in points["attributes"].to_pylist()]
    names = sorted({name for row in given for name in row})
    attributes = {name: np.array([row.get(name, np.nan) for row in given], np.float64) for name in names}
    return LandmarkArrays(
        ids,
        np.concatenate(landmarks),
        np.concatenate(boxes),
        np.concatenate(sizes),
        np.concatenate(visible),
        attributes,
    )
