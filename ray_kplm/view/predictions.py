"""The points of the gallery's images by the sets of points of a run, predicted when they are asked for and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.edit import Applied, present
from ray_kplm.analysis.stored_predictions import stored_landmarks_of
from ray_kplm.detectors.loading import Loaded, load_detector
from ray_kplm.detectors.stored import facing_rule, is_exported, is_run, landmark_predictor
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.inference.split_landmarks import SplitLandmarks
from ray_kplm.methods.predicted import Predicted
from ray_kplm.methods.visibility import visibility_flags
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import LANDMARKS, chosen_name, point_folder, point_sets
from ray_kplm.run import Run
from ray_kplm.view.gallery import DatasetGallery, Gallery, Seen

_NETWORKS_HELD = 2
"""Detectors in memory."""
_SETS_HELD = 6
"""Sets of points whose predictions are in memory."""
AHEAD = 64
"""Images that are predicted as one piece of work ahead; those that are looked at wait for it at most."""


class Points(NamedTuple):
    """The L points of an image.

    Attributes:
        xy: (L, 2), pixels of the picture; NaN where not detected.
        confidence: (L,).
        probability: (L,), NaN of a detector without a `VisibilityModel`.
        flags: (L,), `visibility_flags`.
        size: Width and height of the picture.
    """

    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    flags: NDArray[np.int8]
    size: tuple[int, int]


@dataclass(eq=False)
class _Table:
    """What is known of N images by one set of L points."""

    layout: Layout
    xy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    is_known: NDArray[np.bool_]

    @classmethod
    def empty(cls, layout: Layout, images: int) -> _Table:
        shape = (images, len(layout))
        none = np.full(shape, np.nan, np.float32)
        return cls(layout, np.full((*shape, 2), np.nan, np.float32), none, none.copy(), np.zeros(images, bool))


class Predictions:
    """Points by every set of a run; `predict` is for one thread, the other methods for any."""

    def __init__(self, run: Run, gallery: Gallery, *, device: str | None = None, least: float) -> None:
        """Predict nothing yet.

        Args:
            run: A finished run, or an exported detector.
            gallery: The images.
            device: Of the network; None: a GPU if one is available.
            least: Least probability of a point that is found.
        """
        self.run, self.gallery, self.device, self._least = run, gallery, device, least
        self._tables: OrderedDict[str, _Table] = OrderedDict()
        self._networks: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.RLock()
        self.faults: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}

    def sets(self) -> list[str]:
        """Return the names of the sets of points; an exported detector has one, its own."""
        return [LANDMARKS, *point_sets(self.run.folder)] if is_run(self.run) else [LANDMARKS]

    def default_set(self, name: str | None) -> str:
        """Return which set is meant: see `points.stored.chosen_name`."""
        return chosen_name(self.run.folder, name) if is_run(self.run) else LANDMARKS

    def layout(self, name: str) -> Layout:
        """Return the names, partners and edges of a set. Raises DataError if there is no such set."""
        return self._table(name).layout

    def edited(self) -> Applied | None:
        """Return the points that an edit makes of the landmarks, or the landmarks; None for an exported detector."""
        return present(self.run) if is_run(self.run) else None

    def forget(self, name: str) -> None:
        """Forget what a set was, as it was made again."""
        with self._lock:
            self._tables.pop(name, None)
            self._networks.pop(name, None)

    def _table(self, name: str) -> _Table:
        with self._lock:
            if name not in self._tables:
                if name not in self.sets():
                    raise DataError(f"{name}: there are no such points; there are {', '.join(self.sets())}")
                layout = landmark_predictor(self.run, name if is_run(self.run) else None).layout
                self._tables[name] = _Table.empty(layout, len(self.gallery.items))
            self._tables.move_to_end(name)
            while len(self._tables) > _SETS_HELD:
                self._tables.popitem(last=False)
            return self._tables[name]

    def known(self, name: str) -> NDArray[np.bool_]:
        """Return which images need no prediction any more: (N,)."""
        is_known = self._table(name).is_known.copy()
        is_known[list(self.faults)] = True
        return is_known

    def get(self, name: str, index: int) -> Points | None:
        """Return the points of an image; None if they are not known, or the image cannot be read."""
        table = self._table(name)
        if not table.is_known[index]:
            return None
        item = self.gallery.items[index]
        size = self.sizes.get(index, (item.width, item.height))
        xy, probability = table.xy[index], table.probability[index]
        return Points(xy, table.confidence[index], probability, visibility_flags(xy, probability, self._least), size)

    def sureness(self, name: str, point: int | None) -> NDArray[np.float64]:
        """Return how sure the points of each image are, (N,), NaN where not known.

        It is the probability, or the confidence of a detector without probabilities, of one point or on average.
        """
        table = self._table(name)
        sure = np.where(np.isnan(table.probability), table.confidence, table.probability).astype(np.float64)
        sure[~table.is_known] = np.nan
        return sure.mean(axis=1) if point is None else sure[:, point]

    def predict(self, name: str, indices: Sequence[int]) -> None:
        """Find the points of images that are not known yet. Images that cannot be read are listed in `faults`."""
        table = self._table(name)
        wanted = [index for index in indices if not table.is_known[index] and index not in self.faults]
        self._take_stored(name, table, wanted)
        rest = [index for index in wanted if not table.is_known[index]]
        if not rest:
            return
        loaded = self._network(name)
        for batch in _pieces(rest, loaded.batch):
            seen: list[tuple[int, Seen]] = []
            for index in batch:
                try:
                    seen.append((index, self.gallery.see(index, loaded.size)))
                except DataError as error:
                    self.faults[index] = str(error)
            if seen:
                self._keep(table, seen, loaded)

    def _keep(self, table: _Table, seen: list[tuple[int, Seen]], loaded: Loaded) -> None:
        found = loaded.predictor(np.stack([one.view for _, one in seen]), np.stack([one.box for _, one in seen]))
        for row, (index, one) in enumerate(seen):
            self.sizes[index] = (one.width, one.height)
            table.xy[index] = coordinates.apply(one.to_picture, found.xy[row])
            table.confidence[index], table.probability[index] = found.confidence[row], found.probability[row]
            table.is_known[index] = True

    def _network(self, name: str) -> Loaded:
        if name not in self._networks:
            chosen = name if is_run(self.run) else None
            self._networks[name] = load_detector(str(self.run.folder), self.device, None, chosen)
        self._networks.move_to_end(name)
        while len(self._networks) > _NETWORKS_HELD:
            self._networks.popitem(last=False)
        return self._networks[name]

    def _take_stored(self, name: str, table: _Table, indices: Sequence[int]) -> None:
        """Take the landmarks that the run's evaluation stored; points are made of them where that needs no network."""
        gallery = self.gallery
        if not isinstance(gallery, DatasetGallery) or not is_run(self.run):
            return
        points = None
        if name != LANDMARKS:
            points = landmark_predictor(self.run, name).points
            has_own_network = is_exported(point_folder(self.run.folder, name))
            if points is None or has_own_network or facing_rule(self.run) is not None:
                return
        for split, part, images in dict.fromkeys(map(gallery.part_of, indices)):
            stored = stored_landmarks_of(self.run, gallery.dataset, split, [part])
            if stored is None:
                continue
            found = SplitLandmarks(*(values[: len(images)] for values in stored))
            if points is not None:
                found = self._made(points, found, images)
            rows = slice(images.start, images.stop)
            table.xy[rows], table.confidence[rows], table.probability[rows] = found
            table.is_known[rows] = True

    def _made(self, points: PointSet, found: SplitLandmarks, images: range) -> SplitLandmarks:
        """Return the points that are made of the landmarks of images, as the network's input has them."""
        side = self.run.config.network.image_size
        items = [self.gallery.items[index] for index in images]
        to_input = [coordinates.crop_to_input(item.width, item.height, side) for item in items]
        xy = [coordinates.apply(affine, one) for affine, one in zip(to_input, found.xy, strict=True)]
        made = points.apply(Predicted(np.stack(xy).astype(np.float32), found.confidence, found.probability), side)
        back = [coordinates.apply(coordinates.invert(a), one) for a, one in zip(to_input, made.xy, strict=True)]
        return SplitLandmarks(np.stack(back).astype(np.float32), made.confidence, made.probability)


def _pieces(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
