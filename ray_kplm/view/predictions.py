"""The points of the gallery's images by the sets of points of a run, predicted when they are asked for and kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from ray_kplm.analysis.edit import Applied, present
from ray_kplm.analysis.stored_predictions import stored_landmarks_of
from ray_kplm.detectors.loading import Loaded, load_detector
from ray_kplm.detectors.stored import facing_rule, is_exported, is_run, landmark_predictor
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.inference.split_landmarks import SplitLandmarks
from ray_kplm.methods.predicted import Predicted
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import LANDMARKS, POINTS_FILE, chosen_name, point_folder, point_sets
from ray_kplm.run import Run
from ray_kplm.view.gallery import DatasetGallery, Gallery, Seen
from ray_kplm.view.point_table import PointTable

_NETWORKS_HELD = 2
"""Detectors in memory."""
_SETS_HELD = 6
"""Sets of points whose predictions are in memory."""
_Version = tuple[str, str]
"""Name of a set of points, and the hash of what defines it."""
AHEAD = 64
"""Images that are predicted as one piece of work ahead; those that are looked at wait for it at most."""


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
        self._layouts: dict[_Version, Layout] = {}
        self._tables: OrderedDict[_Version, PointTable] = OrderedDict()
        self._networks: OrderedDict[_Version, Loaded] = OrderedDict()
        self._lock = threading.RLock()
        self.faults: dict[int, str] = {}
        self._sizes: dict[int, tuple[int, int]] = {}

    def sets(self) -> list[str]:
        """Return the names of the sets of points; an exported detector has one, its own."""
        return [LANDMARKS, *point_sets(self.run.folder)] if is_run(self.run) else [LANDMARKS]

    def default_set(self, name: str | None) -> str:
        """Return which set is meant: see `points.stored.chosen_name`."""
        return chosen_name(self.run.folder, name) if is_run(self.run) else LANDMARKS

    def _version(self, name: str) -> _Version:
        """Return what a set is now: commands beside the page may make it again. Raises DataError if there is no such set."""
        if name == LANDMARKS:
            return name, ""
        folder = point_folder(self.run.folder, name)
        if not (is_run(self.run) and name in self.sets()):
            raise DataError(f"{name}: there are no such points; there are {', '.join(self.sets())}")
        return name, hashlib.sha256(folder.read_bytes(POINTS_FILE)).hexdigest()

    def layout(self, name: str) -> Layout:
        """Return the names, partners and edges of a set. Raises DataError if there is no such set."""
        return self._layout(self._version(name))

    def _layout(self, version: _Version) -> Layout:
        with self._lock:
            if version not in self._layouts:
                self._layouts[version] = landmark_predictor(self.run, self._choice(version)).layout
            return self._layouts[version]

    def _choice(self, version: _Version) -> str | None:
        return version[0] if is_run(self.run) else None

    def table(self, name: str) -> PointTable:
        """Return what is known by a set. Raises DataError if there is no such set."""
        return self._table(self._version(name))

    def _table(self, version: _Version) -> PointTable:
        with self._lock:
            if version not in self._tables:
                self._tables[version] = PointTable.empty(self._layout(version), len(self.gallery.items), self._least)
            self._tables.move_to_end(version)
            while len(self._tables) > _SETS_HELD:
                self._tables.popitem(last=False)
            return self._tables[version]

    def edited(self) -> Applied | None:
        """Return the points that an edit makes of the landmarks, or the landmarks; None for an exported detector."""
        return present(self.run) if is_run(self.run) else None

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of a picture; zeros if it was not read yet."""
        item = self.gallery.items[index]
        return self._sizes.get(index, (item.width, item.height))

    def missing(self, name: str) -> list[int]:
        """Return the images whose points are still to be predicted."""
        is_done = self.table(name).is_known.copy()
        is_done[list(self.faults)] = True
        return [int(index) for index in np.flatnonzero(~is_done)]

    def predict(self, name: str, indices: Sequence[int]) -> None:
        """Find the points of images that are not known yet. Images that cannot be read are listed in `faults`."""
        version = self._version(name)
        table = self._table(version)
        wanted = [index for index in indices if not table.is_known[index] and index not in self.faults]
        self._take_stored(name, table, wanted)
        rest = [index for index in wanted if not table.is_known[index]]
        if not rest:
            return
        loaded = self._network(version)
        for batch in _pieces(rest, loaded.batch):
            seen: list[tuple[int, Seen]] = []
            for index in batch:
                try:
                    seen.append((index, self.gallery.see(index, loaded.size)))
                except DataError as error:
                    self.faults[index] = str(error)
            if seen:
                self._keep(table, seen, loaded)

    def _keep(self, table: PointTable, seen: list[tuple[int, Seen]], loaded: Loaded) -> None:
        found = loaded.predictor(np.stack([one.view for _, one in seen]), np.stack([one.box for _, one in seen]))
        for row, (index, one) in enumerate(seen):
            self._sizes[index] = (one.width, one.height)
            table.xy[index] = coordinates.apply(one.to_picture, found.xy[row])
            table.confidence[index], table.probability[index] = found.confidence[row], found.probability[row]
            table.is_known[index] = True

    def _network(self, version: _Version) -> Loaded:
        if version not in self._networks:
            self._networks[version] = load_detector(str(self.run.folder), self.device, None, self._choice(version))
        self._networks.move_to_end(version)
        while len(self._networks) > _NETWORKS_HELD:
            self._networks.popitem(last=False)
        return self._networks[version]

    def _take_stored(self, name: str, table: PointTable, indices: Sequence[int]) -> None:
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
