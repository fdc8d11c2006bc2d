"""Datasets: the listing of a source, the builder of one part, and the finished dataset on storage.

<dataset>/dataset.json                              name, landmark names, licence; written first
<dataset>/<split>/images/part-00000.parquet         schemas.IMAGES
<dataset>/<split>/landmarks/part-00000.parquet      schemas.LANDMARKS, if annotated; the same rows
<dataset>/rejected.parquet                          schemas.REJECTED
<dataset>/notes.parquet                             schemas.REJECTED, of inputs that are used; if there are any
<dataset>/manifest.json                             written last, when the dataset is complete
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.datasets.description import check_description
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.datasets.registry import AUTO
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging.coordinates import Affine
from ray_kplm.ranges import (
    COUNTS,
    FILE_BYTES,
    MARGINS,
    PART_IMAGES,
    PIXELS,
    SIDES,
    PartShare,
    Processes,
    Seed,
    check_ranges,
)
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import MANIFEST, CheckedFolder, read_manifest
from ray_kplm.video.reader import Videos


@dataclass(frozen=True)
class IngestOptions:
    """Options of the ingest step."""

    format: str = AUTO
    """A published data set in its authors' layout, see `registry.FORMATS`; auto: Parquet files or a folder of images."""
    boxes: str | None = None
    """CSV or Parquet: image (path below the source), x0, y0, x1, y1 in pixels of the upright image. For a folder of images."""
    landmarks: str | None = None
    """Parquet: image, landmarks (L x 2, the same pixels), optional visible, group. For the evaluation of a folder of images."""
    sequences: str | None = None
    """CSV or Parquet: image, sequence, frame, for images that are frames of videos. For a folder of images."""
    margin: Annotated[float, MARGINS] = 0.2
    """Margin of the crop on each side of a box, share of its longer side."""
    size: Annotated[int, SIDES] = 256
    """Longest side of a stored picture, px; larger ones are scaled down. Parquet sources are stored as they are."""
    test_share: PartShare = 0.1
    """Share of the images drawn for the test split, if the source has no splits."""
    part_images: Annotated[int, PART_IMAGES] = 512
    """Source images per part: the unit of retry, of resume and of memory."""
    min_side: Annotated[int, SIDES] = 32
    """Pictures whose shorter side, as stored, is below this many px are rejected."""
    seed: Seed = 0
    """Seed of the splits."""
    drop_duplicates: bool = False
    """Whether of several pictures of a folder with the same content only one is used, that of the test split first."""
    max_pixels: Annotated[int, PIXELS] = DEFAULT_LIMITS.pixels
    """Pictures of more pixels are refused before they are decoded, which takes 7 bytes a pixel."""
    max_bytes: Annotated[int, FILE_BYTES] = DEFAULT_LIMITS.file_bytes
    """Larger image files are refused before they are read."""
    every: Annotated[int, COUNTS] | None = None
    """Every how many frames of a video one is used; None: videos of a folder are left out, and all frames of those that are
    named one by one are used."""
    input_size: Annotated[int, SIDES] | None = None
    """Store the network's input of this side, px, without loss, instead of crops: for predictions."""
    workers: Processes | None = None
    """Parts built at the same time; None: one for each CPU of the cluster."""

    def __post_init__(self) -> None:
        check_ranges(self, "ingest: ")
        if self.size < self.min_side:
            raise ConfigError(f"ingest: size = {self.size}: must be at least min_side ({self.min_side} px)")

    @property
    def limits(self) -> Limits:
        """What a picture may have at most."""
        return Limits(self.max_pixels, self.max_bytes)


class PartTables(NamedTuple):
    """The tables of one part; rows of `images` and of `landmarks` are the same images in the same order.

    `noted` has the columns of `rejected`: inputs that are used, and what was done to them.
    """

    images: pa.Table
    landmarks: pa.Table | None
    rejected: pa.Table
    noted: pa.Table = pa.Table.from_batches([], schemas.REJECTED)  # `empty_table` imports pandas


@dataclass(frozen=True)
class Listing:
    """The entries of a source by split, and the function that reads them."""

    splits: dict[str, list[Any]]
    """Entries in a fixed order, of a type that only `read_part` uses."""
    read_part: Callable[[Sequence[Any]], PartTables]
    """Builds a part from some entries; pure (the same entries give the same tables) and picklable."""
    identity: str
    """Hash of the source's content, as far as it is known without decoding images."""
    meta: dict[str, Any]
    """name, landmark_names, swap_pairs, nme, licence, as far as the source has them."""
    landmarks: int
    """Annotated landmarks of each image; 0: none."""
    sequences: bool
    """Whether images are frames of videos."""
    rejected: list[tuple[str, str]]
    """(source, reason) of entries that are rejected without decoding."""
    other_files: int = 0
    """Number of files that are no images."""
    notes: tuple[str, ...] = ()
    """What the user is told of the source, a line each."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of files of each kind that is not read, by extension (`file_kinds.advice`)."""
    videos: Videos | None = None
    """The videos that images are frames of, as far as their files were read."""


def split_of(key: str, options: IngestOptions) -> str:
    """Return the split of an image (or of a group) by a seeded hash, independent of all other images."""
    digest = hashlib.sha256(f"{options.seed}:{key}".encode()).digest()
    return schemas.TEST if int.from_bytes(digest[:8], "big") < options.test_share * 2**64 else schemas.TRAIN


ANNOTATION = frozenset(
    {"image_id", "image", "width", "height", "bbox", "landmarks", "visible", "group", "sequence", "frame"}
)
"""Columns with a meaning. Other numbers of an annotated image are stored as attributes, for evaluation by ranges of them."""

_FAINT = 8
"""Steps of 255 that a picture's values differ by if it shows something."""


def _is_nearly_constant(rgb: NDArray[np.uint8]) -> bool:
    """Return whether a picture (H, W, 3) shows nothing: each colour varies by less than a step that an eye sees."""
    return bool((np.ptp(rgb.reshape(-1, 3), axis=0) < _FAINT).all())


def printable(text: str) -> str:
    """Return text that can be stored: parts of a broken name, which are no characters, become escapes."""
    return text.encode("utf-8", errors="backslashreplace").decode()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class PartBuilder:
    """Collects the rows of one part."""

    def __init__(self, landmarks: int) -> None:
        """Start an empty part of images with `landmarks` annotated landmarks each; 0: no annotation."""
        self._count = landmarks
        self._images: list[dict[str, Any]] = []
        self._landmarks: list[dict[str, Any]] = []
        self._rejected: list[dict[str, str]] = []
        self._noted: list[dict[str, str]] = []

    def reject(self, source: str, reason: str) -> None:
        """Add an input that is not used."""
        self._rejected.append({"source": printable(source), "reason": printable(reason)})

    def note(self, source: str, text: str) -> None:
        """Say what was done to an input that is used, as `kind` or `kind: detail`; the report counts by kind."""
        self._noted.append({"source": printable(source), "reason": printable(text)})

    def add(
        self,
        image_id: str,
        image: bytes,
        rgb: NDArray[np.uint8],
        box: NDArray[Any] | None,
        crop_to_source: Affine,
        annotation: dict[str, Any] | None = None,
        frame: tuple[str, int] | None = None,
        source_size: tuple[int, int] | None = None,
    ) -> None:
        """Add one image.

        Args:
            image_id: Unique in the dataset.
            image: The encoded crop, JPEG or PNG.
            rgb: The decoded crop, (H, W, 3).
            box: (4,), the object, crop frame.
            crop_to_source: The map of points to the source frame.
            annotation: landmarks (L, 2), crop frame; visible (L,); group; further numbers become attributes. None: not
                annotated, all landmarks are NaN.
            frame: The sequence of a video's frame, and its time there.
            source_size: Width and height of the source picture, upright, pixels; None: not known.
        """
        height, width = rgb.shape[:2]
        if _is_nearly_constant(rgb):
            self.note(image_id, "nearly constant")
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
                "source_width": source_size and source_size[0],
                "source_height": source_size and source_size[1],
            }
        )

    def _annotation(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of schemas.LANDMARKS; a landmark that is NaN is not visible."""
        points = np.full((self._count, 2), np.nan, dtype=np.float32)
        if given.get("landmarks") is not None and len(given["landmarks"]):
            with np.errstate(over="ignore"):  # beyond float32 is infinite
                points[:] = given["landmarks"]
        points[~np.isfinite(points).all(axis=1)] = np.nan  # a point with one coordinate is none
        visible = given.get("visible") or [True] * self._count
        if len(visible) != self._count:
            raise DataError(f"bad annotation: {len(visible)} values of visible for {self._count} landmarks")
        visible = [bool(shown) and not np.isnan(point).any() for shown, point in zip(visible, points, strict=True)]
        numbers = [(name, float(given[name])) for name in sorted(given.keys() - ANNOTATION) if _is_number(given[name])]
        return {"landmarks": points.tolist(), "visible": visible, "group": given.get("group"), "attributes": numbers}

    def tables(self) -> PartTables:
        """Return the tables of all added images and rejected inputs."""
        landmarks = pa.Table.from_pylist(self._landmarks, schema=schemas.LANDMARKS) if self._count else None
        return PartTables(
            pa.Table.from_pylist(self._images, schema=schemas.IMAGES),
            landmarks,
            pa.Table.from_pylist(self._rejected, schema=schemas.REJECTED),
            pa.Table.from_pylist(self._noted, schema=schemas.REJECTED),
        )


DATASET = "dataset.json"
"""What the source states of a dataset, in its folder."""


def dataset_folder(folder: Folder) -> CheckedFolder:
    """Return the folder of a dataset, whose files are checked when they are read."""
    repair, again = f"`kplm verify {folder} --repair`", f"`kplm ingest SOURCE {folder}`"
    return CheckedFolder.of(
        folder, f"{repair} removes what is damaged, and {again} with the same options makes it again"
    )


@dataclass(frozen=True)
class Dataset:
    """A complete dataset on storage."""

    root: CheckedFolder
    manifest: dict[str, Any] = field(repr=False, hash=False)
    meta: dict[str, Any] = field(repr=False, hash=False)
    """name, landmark_names, swap_pairs, nme, licence, source."""

    @classmethod
    def open(cls, uri: str | os.PathLike[str] | Folder) -> Dataset:
        """Open a dataset.

        Raises:
            DataError: There is no complete dataset.
            DamageError: What describes it is damaged.
        """
        root = dataset_folder(uri if isinstance(uri, Folder) else Folder.at(uri))
        if not root.is_file(MANIFEST):
            raise DataError(f"{root} is no finished dataset (it has no manifest.json); run `kplm ingest SOURCE {root}`")
        manifest = read_manifest(root)
        if manifest.get("kind") != "dataset":
            raise DataError(
                f"{root} is no dataset: its manifest.json is of kind {manifest.get('kind')!r}; pass what `kplm ingest` wrote"
            )
        with root.parsing(MANIFEST):
            str(manifest["fingerprint"]), int(manifest["landmarks"])
            for split in manifest["splits"].values():
                list(split["parts"]), list(split["rows"]), int(split["images"])
        return cls(root, manifest, check_description(root.read_object(DATASET), f"{root}/{DATASET}"))

    @property
    def fingerprint(self) -> str:
        """Hash of the source and the options that the dataset was made from."""
        return str(self.manifest["fingerprint"])

    @property
    def has_landmarks(self) -> bool:
        """Whether images are annotated."""
        return int(self.manifest["landmarks"]) > 0

    @property
    def has_sequences(self) -> bool:
        """Whether images are frames of videos."""
        return bool(self.manifest.get("sequences", False))

    def images(self, split: str) -> CheckedFolder:
        """Return the folder of the split's image parts."""
        return self.root / split / "images"

    def landmarks(self, split: str) -> CheckedFolder:
        """Return the folder of the split's landmark parts, which have the names of the image parts."""
        return self.root / split / "landmarks"

    def parts(self, split: str) -> list[str]:
        """Return the names of the split's parts."""
        return list(self._split(split)["parts"])

    def rows(self, split: str) -> list[int]:
        """Return the number of images in each part, in the order of `parts`."""
        return list(self._split(split)["rows"])

    def count(self, split: str) -> int:
        """Return the number of images in the split."""
        return int(self._split(split)["images"])

    def _split(self, split: str) -> dict[str, Any]:
        """Return the split's entry in the manifest."""
        if split not in self.manifest["splits"]:
            raise DataError(f"{self.root} has no split {split!r}; it has {', '.join(self.manifest['splits'])}")
        entry: dict[str, Any] = self.manifest["splits"][split]
        return entry
