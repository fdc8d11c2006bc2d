"""The images of a round in Ray's object store: encoded, one object per part, read from storage once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.runtime.session import DEFAULT_SCHEDULING
from ray_kplm.storage import Folder


@dataclass
class RoundImages:
    """Encoded crops of a round, by their index in its selection. Small when pickled: it holds object references.

    A process fetches the objects of the parts that it needs. The arrays share the object store's memory.
    """

    starts: NDArray[np.int64]
    """(parts,) index of the first image of each part."""
    refs: list[ray.ObjectRef]
    """One for each part: an Arrow table of its selected images."""
    _tables: dict[int, pa.Array] = field(default_factory=dict, repr=False)
    _boxes: dict[int, pa.Array] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, images: Folder, selection: Selection) -> RoundImages:
        """Start to read the selected images of a dataset's `images` folder into the object store."""
        refs = [_read.remote(images, part, rows) for part, rows in zip(selection.parts, selection.rows, strict=True)]
        return cls(np.cumsum([0, *(len(rows) for rows in selection.rows)])[:-1], refs)

    def fetch(self, indices: NDArray[np.integer[Any]]) -> None:
        """Fetch the parts of these images in one request, which is faster than one request per part."""
        parts = [int(part) for part in np.unique(self._part(indices)) if part not in self._tables]
        for part, table in zip(parts, ray.get([self.refs[part] for part in parts]), strict=True):
            self._tables[part] = table["image"].chunk(0)
            self._boxes[part] = table["box"].chunk(0)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return the decoded crop: uint8 (H, W, 3), RGB."""
        part = int(self._part(index))
        if part not in self._tables:
            self.fetch(np.array([index]))
        return decode_crop(self._tables[part][index - int(self.starts[part])])

    def box(self, index: int) -> NDArray[np.float64] | None:
        """Return the object's box in the crop, (4,); None if it has none. The image must have been asked for before."""
        part = int(self._part(index))
        box = self._boxes[part][index - int(self.starts[part])].as_py()
        return None if box is None else np.array(box, np.float64)

    def _part(self, indices: NDArray[np.integer[Any]] | int) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, indices, side="right") - 1

    def __getstate__(self) -> dict[str, object]:
        return {"starts": self.starts, "refs": self.refs, "_tables": {}, "_boxes": {}}


@ray.remote(num_cpus=1, max_retries=3, scheduling_strategy=DEFAULT_SCHEDULING)  # type: ignore[untyped-decorator]
def _read(images: Folder, part: str, rows: NDArray[np.int64]) -> pa.Table:
    return images.read_table(part, ["image", "box"]).take(pa.array(rows)).combine_chunks()
