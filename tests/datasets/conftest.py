"""Small sources in the layouts of published data sets, written by the formats' public descriptions."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder


class Read(NamedTuple):
    """Everything that a listing yields, all entries of a split read as one part; rows by image_id."""

    listing: Listing
    splits: dict[str, set[str]]
    images: dict[str, dict]
    landmarks: dict[str, dict]
    rejected: dict[str, str]  # the reasons' kinds

    def points(self, image_id) -> np.ndarray:
        """(L, 2), crop frame."""
        return np.array(self.landmarks[image_id]["landmarks"])

    def in_source(self, image_id) -> np.ndarray:
        """(L, 2), source frame."""
        return coordinates.apply(np.reshape(self.images[image_id]["crop_to_source"], (2, 3)), self.points(image_id))

    def box_in_source(self, image_id) -> list[float]:
        """x0, y0, x1, y1, source frame, of a crop that is not mirrored."""
        corners = np.reshape(self.images[image_id]["box"], (2, 2))
        to_source = np.reshape(self.images[image_id]["crop_to_source"], (2, 3))
        return coordinates.apply(to_source, corners).ravel().round(3).tolist()

    def attributes(self, image_id) -> dict[str, float]:
        return dict(self.landmarks[image_id]["attributes"])

    def light(self, image_id) -> np.ndarray:
        """Where the one bright dot of the stored crop is, (2,)."""
        pixels = np.asarray(Image.open(io.BytesIO(self.images[image_id]["image"])), dtype=float).sum(axis=2)
        pixels[pixels < 250] = 0
        y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        return np.array([(x * pixels).sum(), (y * pixels).sum()]) / pixels.sum()


class Source:
    """A folder of downloads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _at(self, path) -> Path:
        at = self.root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        return at

    def text(self, path, *lines) -> None:
        self._at(path).write_text("\n".join(lines) + "\n")

    def content(self, path, content: bytes) -> None:
        self._at(path).write_bytes(content)

    def mat(self, path, **variables) -> None:
        savemat(self._at(path), variables)

    def picture(self, path, dot=(30, 30), width=100, height=90) -> None:
        """A black JPEG with a bright dot, 5 x 5 px, centred at a whole pixel."""
        x, y = map(int, dot)
        assert (x, y) == tuple(dot)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
        Image.fromarray(pixels).save(self._at(path), quality=95)

    def local(self, path) -> str:
        return str(self._at(path))

    def remove(self, path) -> None:
        (self.root / path).unlink()

    def read(self, list_source, **options) -> Read:
        listing = list_source(Folder.at(self.root), IngestOptions(**options))
        splits, images, landmarks, rejected = {}, {}, {}, {}
        for source, reason in listing.rejected:
            rejected[source] = reason.partition(":")[0]
        for split, entries in listing.splits.items():
            tables = listing.read_part(entries)
            assert tables.images["image_id"].equals(tables.landmarks["image_id"])
            splits[split] = set(tables.images["image_id"].to_pylist())
            images.update({row["image_id"]: row for row in tables.images.to_pylist()})
            landmarks.update({row["image_id"]: row for row in tables.landmarks.to_pylist()})
            rejected.update({row["source"]: row["reason"].partition(":")[0] for row in tables.rejected.to_pylist()})
        return Read(listing, splits, images, landmarks, rejected)


@pytest.fixture
def source(tmp_path) -> Source:
    root = tmp_path / "source"
    root.mkdir()
    return Source(root)


@pytest.fixture
def scattered():
    """Landmarks at different whole pixels, (count, 2), the same for the same seed."""

    def scatter(count: int, seed: int = 0, low: int = 20, high: int = 70) -> np.ndarray:
        places = np.random.default_rng(seed).choice((high - low) ** 2, count, replace=False)
        return np.stack([places % (high - low) + low, places // (high - low) + low], axis=1).astype(float)

    return scatter
