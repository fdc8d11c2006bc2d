"""What the page can ask for: its state, images with their points, and changes. Plain values in and out; no HTTP here."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.detectors.stored import is_run
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging.draw import palette
from ray_kplm.points.stored import EDITED, check_point_set_name
from ray_kplm.ranges import MIN_PROBABILITY
from ray_kplm.run import Run
from ray_kplm.view.adapting import Job
from ray_kplm.view.edits import EditedPoint, save_edit
from ray_kplm.view.gallery import Gallery, open_gallery
from ray_kplm.view.label_file import LabelFile
from ray_kplm.view.label_points import Point
from ray_kplm.view.point_table import Points, PointTable
from ray_kplm.view.predictions import AHEAD, Predictions
from ray_kplm.view.worker import ASKED, LATER, SHOWN, Worker

ORDERS = ("given", "least", "most")
MOST_AT_ONCE = 200
"""Images of one answer."""


@dataclass(frozen=True)
class Wanted:
    """Which images are listed, and in which order.

    Attributes:
        points: The set of points.
        order: `given`, `least` sure first, or `most` sure first.
        point: Which point the likelihood is of; None: the mean of all.
        below: Only images that are less sure than this; None: all.
        split: Of a dataset; empty: all.
        labelled: Only images that are labelled, or that are not; None: all.
        offset: Images that are left out at the begin.
        count: Images at most.
    """

    points: str
    order: str = "given"
    point: int | None = None
    below: float | None = None
    split: str = ""
    labelled: bool | None = None
    offset: int = 0
    count: int = 60


class Workspace:
    """A run, a gallery and a file of labels, as one page works on them; several tabs may."""

    def __init__(self, run: Run, predictions: Predictions, labels: LabelFile, points: str) -> None:
        """Begin with the points of the set `points`."""
        self.run, self.predictions, self.labels, self._points = run, predictions, labels, points
        self.gallery: Gallery = predictions.gallery
        self.worker, self.job = Worker(), Job(predictions.device)
        self._ahead: tuple[str, int] = ("", 0)
        self._session = secrets.token_hex(
            8
        )  # in addresses of pictures: a browser keeps those of another run at this port
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, run: Run, images: Sequence[str], labels: str, *, points: str | None = None, split: str | None = None,
        most: int = 10_000, device: str | None = None, least: float = MIN_PROBABILITY,
    ) -> Workspace:  # fmt: skip
        """Return the workspace of a run.

        Args:
            run: A finished run, or an exported detector.
            images: A dataset, or files and folders of images.
            labels: The file of labels.
            points: The set of points to begin with; None: as `points.stored.chosen_name`.
            split: Of the dataset; None: all.
            most: Images at most.
            device: Of the network; None: a GPU if one is available.
            least: Least probability of a point that is found.

        Raises:
            DataError: There are no images or no such points, or the file of labels is none.
        """
        predictions = Predictions(run, open_gallery(images, split, most), device=device, least=least)
        return cls(run, predictions, LabelFile(labels, predictions.gallery), predictions.default_set(points))

    # -- what is there

    def about(self) -> str:
        """Return what is shown, the begin of a line for people."""
        count, left_out = len(self.gallery.items), self.gallery.left_out
        more = f" (the first; {left_out:,} more are left out)" if left_out else ""
        return f"{count:,} images of {self.gallery.title}{more} at"

    def state(self) -> dict[str, Any]:
        """Return what the page shows beside images."""
        sets = [self._set(name) for name in self.predictions.sets()]
        splits = list(dict.fromkeys(item.split for item in self.gallery.items if item.split))
        labels = self.labels
        return {
            "session": self._session, "run": str(self.run.folder),
            "source": self.gallery.title, "images": len(self.gallery.items),
            "left_out": self.gallery.left_out, "splits": splits, "sets": sets, "chosen": self._points,
            "edited": self._edited(),
            "labels": {"file": labels.path, "names": labels.names, "count": len(labels.labels),
                       "colours": _colours(len(labels.names))},
            "faults": len(self.predictions.faults), "job": self.job.state(),
        }  # fmt: skip

    def _edited(self) -> dict[str, Any] | None:
        """Return the points that can be edited: names, landmarks, partners and edges."""
        points = self.predictions.edited()
        return None if points is None else points.figures()

    def _set(self, name: str) -> dict[str, Any]:
        layout = self.predictions.layout(name)
        return {
            "id": name, "names": layout.names, "partners": layout.partners, "skeleton": layout.skeleton,
            "colours": _colours(len(layout)),
        }  # fmt: skip

    def listing(self, wanted: Wanted) -> dict[str, Any]:
        """Return some images, in order. Those that are not predicted yet come last, and are predicted ahead.

        Raises:
            ConfigError: What is wanted does not exist.
        """
        table = self.predictions.table(wanted.points)
        sure = self._likelihood(table, wanted)
        chosen = np.flatnonzero(self._is_wanted(wanted, sure))
        if wanted.order != "given":
            sign = 1 if wanted.order == "least" else -1
            chosen = chosen[np.argsort(sign * sure[chosen], kind="stable")]  # NaN last
        if wanted.order != "given" or wanted.below is not None:
            self._predict_ahead(wanted.points)
        shown = chosen[wanted.offset : wanted.offset + min(wanted.count, MOST_AT_ONCE)].tolist()
        left = len(self.predictions.missing(wanted.points))
        images = [self._entry(table, index) for index in shown]
        return {"total": len(chosen), "offset": wanted.offset, "left": left, "images": images}

    def _likelihood(self, table: PointTable, wanted: Wanted) -> NDArray[np.float64]:
        if wanted.order not in ORDERS:
            raise ConfigError(f"order = {wanted.order}: is one of {', '.join(ORDERS)}")
        count = len(table.layout)
        if wanted.point is not None and not 0 <= wanted.point < count:
            raise ConfigError(f"point = {wanted.point}: {wanted.points} has those from 0 to {count - 1}")
        return table.likelihood(wanted.point)

    def _is_wanted(self, wanted: Wanted, sure: NDArray[np.float64]) -> NDArray[np.bool_]:
        is_wanted = np.ones(len(self.gallery.items), bool)
        if wanted.split:
            is_wanted &= np.array([item.split == wanted.split for item in self.gallery.items], bool)
        if wanted.labelled is not None:
            is_labelled = np.zeros(len(is_wanted), bool)
            is_labelled[list(self.labels.labels)] = True
            is_wanted &= is_labelled == wanted.labelled
        if wanted.below is not None:
            is_wanted &= sure < wanted.below
        return is_wanted

    def _entry(self, table: PointTable, index: int) -> dict[str, Any]:
        item, label = self.gallery.items[index], self.labels.labels.get(index)
        return {
            "index": index, "name": item.name, "split": item.split, "width": item.width, "height": item.height,
            "label": label.to_dict() if label else None, "points": self._points_of(table, index),
        }  # fmt: skip

    def _points_of(self, table: PointTable, index: int) -> dict[str, Any] | None:
        """Return the points of an image as the page takes them, or why there are none; None if they are not known yet."""
        if index in self.predictions.faults:
            return {"error": self.predictions.faults[index]}
        points = table.get(index)
        return None if points is None else _plain(points, *self.predictions.size(index))

    def _predict_ahead(self, name: str) -> None:
        """Predict all images of a set piece by piece, until another set is wanted."""
        with self._lock:
            if self._ahead[0] == name:
                return
            number = self._ahead[1] + 1
            self._ahead = (name, number)
        self.worker.submit(LATER, lambda: self._one_ahead(name, number))

    def _one_ahead(self, name: str, number: int) -> None:
        if self._ahead != (name, number):
            return
        missing = self.predictions.missing(name)
        if not missing:
            with self._lock:
                self._ahead = ("", number)
            return
        try:
            self.predictions.predict(name, missing[:AHEAD])
        except BaseException:
            with self._lock:
                self._ahead = ("", number)
            raise
        self.worker.submit(LATER, lambda: self._one_ahead(name, number))

    async def points(self, name: str, indices: Sequence[int]) -> dict[int, Any]:
        """Return the points of images, which are predicted if they are not known yet."""
        import asyncio

        self.check_images(indices)
        await asyncio.wrap_future(self.worker.submit(SHOWN, lambda: self.predictions.predict(name, indices)))
        table = self.predictions.table(name)
        return {index: self._points_of(table, index) for index in indices}

    def check_images(self, indices: Sequence[int]) -> None:
        """Raise DataError if there is no such image, or ConfigError if there are too many."""
        if len(indices) > MOST_AT_ONCE:
            raise ConfigError(f"{len(indices)} images at once: ask for {MOST_AT_ONCE} at most")
        for index in indices:
            if not 0 <= index < len(self.gallery.items):
                raise DataError(f"image {index}: there are those from 0 to {len(self.gallery.items) - 1}")

    # -- what changes

    def save_label(
        self, index: int, points: Sequence[Point | None], names: Sequence[str], revision: str | None
    ) -> dict[str, Any]:
        """Save the label of an image: see `LabelFile.save`."""
        self.check_images([index])
        return self.labels.save(index, points, names, revision).to_dict()

    def remove_label(self, index: int, revision: str | None) -> None:
        """Remove the label of an image: see `LabelFile.remove`."""
        self.check_images([index])
        self.labels.remove(index, revision)

    def edit(self, points: Sequence[EditedPoint], edges: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Make the landmarks of the run into points; labels of points that got other names get them too.

        Returns:
            `file`, what was written, and `notes`, lines for people.

        Raises:
            ConfigError: The points break a rule.
        """
        before = self._edited()
        if before is None:
            raise ConfigError(f"{self.run.folder}: is an exported detector; the points of a run can be edited")
        file, notes = save_edit(self.run, points, edges)
        now = {point.landmarks: point.name for point in points}
        renamed = {one["name"]: now.get(tuple(one["landmarks"]), one["name"]) for one in before["points"]}
        known = self.labels.names
        if any(renamed.get(name, name) != name for name in known):
            self.labels.set_names([renamed.get(name, name) for name in known], known, renamed)
        return {"file": file, "notes": notes, "set": EDITED}

    def adapt(self, name: str) -> dict[str, Any]:
        """Begin to fit points on the labels, in the worker. Raises ConfigError if that cannot be begun."""
        check_point_set_name(name)
        if not is_run(self.run):
            raise ConfigError(f"{self.run.folder}: is an exported detector; the points of a run can be adapted")
        self.job.begin(name)
        self.worker.submit(ASKED, lambda: self.job.do(self.run, self.labels.path))
        return self.job.state()


def _colours(count: int) -> list[str]:
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in palette(count).tolist()] if count else []


def _plain(points: Points, width: int, height: int) -> dict[str, Any]:
    return {
        "xy": [[round(x, 3), round(y, 3)] if np.isfinite(x + y) else None for x, y in points.xy.tolist()],
        "sure": [round(value, 4) if np.isfinite(value) else None for value in points.likelihood.tolist()],
        "flags": points.flags.tolist(), "width": width, "height": height,
    }  # fmt: skip
