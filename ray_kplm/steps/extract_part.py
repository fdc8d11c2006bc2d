"""The workers of an extraction: they measure or extract one part after the other.

Reading a part, decoding its images, the network, and writing what was found overlap (`stages`), across parts too. Beside an
accelerator the images of the next batches are decoded while it works. On a CPU the network needs all threads of the worker, and
batches are decoded between its forward passes, by as many threads.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence import features
from ray_kplm.correspondence.features import features_table, keypoints_table
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.dense_features import DenseFeatures, build_features
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.methods.base import Method
from ray_kplm.methods.extractor import Detected, KeypointExtractor, Pending
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.frozen_descriptors import FrozenDescriptors, describe_detected
from ray_kplm.methods.inputs import Inputs, make_inputs, worker_placement
from ray_kplm.methods.trainer import read_weights
from ray_kplm.network.compute import Placement
from ray_kplm.steps.stages import Afterwards, in_background
from ray_kplm.storage import Folder

CALIBRATION, SCORES, FROZEN = "calibration", "scores", "frozen"
"""Folder of what is measured on the sample, below that of the features while they are made: heights of peaks, and frozen
descriptors of keypoints."""
_AHEAD, _BEHIND = 3, 3
"""Decoded batches that may wait for an accelerator, and computed batches that may wait to be collected."""
_NOWHERE = np.zeros((0, 2), np.float32)


@dataclass(frozen=True)
class Extraction:
    """All that an extraction worker needs.

    sample: the images on which the threshold is calibrated, to `points_per_landmark` points for each landmark. known: labels
    whose points are described beside the detected ones. facings: which way images face, where mirror images are `facing`; the
    network then sees all as they face one way. described: whether `features` hold descriptors. frozen_share: of the descriptors
    of the configured `features`, which are blended with the learnt ones; 0: nothing is blended. beside: where the projection of
    these is; by default the folder around that of the network. threshold: the calibrated one, as soon as it is known. ahead:
    batches that are decoded ahead of the network; by default none where it runs on a CPU, else a few. key: what a process knows
    the network by that it has loaded.
    """

    method: Method
    round_number: int
    network: Folder
    images: Folder
    sample: Selection
    points_per_landmark: float
    features: Folder
    known: Folder | None = None
    facings: Facings | None = None
    described: bool = True
    frozen_share: float = 0.0
    beside: Folder | None = None
    threshold: float | None = None
    ahead: int | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def config(self) -> Config:
        return self.method.config

    @property
    def projection_folder(self) -> Folder:
        return self.beside or self.network.parent


class _Networks:
    """What a process runs on images."""

    def __init__(self, extraction: Extraction) -> None:
        self._config = extraction.config
        self.placement: Placement = worker_placement(extraction.config.compute)
        weights = read_weights(extraction.network)
        self.extractor: KeypointExtractor = extraction.method.extractor(
            weights, self.placement, extraction.round_number
        )

    @cached_property
    def frozen(self) -> DenseFeatures:
        return build_features(self._config, self.placement.device)


_loaded: dict[str, _Networks] = {}
"""The networks of the last extraction in this process, which both its maps use."""


def _networks(extraction: Extraction) -> _Networks:
    if extraction.key not in _loaded:
        _loaded.clear()
        _loaded[extraction.key] = _Networks(extraction)
    return _loaded[extraction.key]


@dataclass
class _Part:
    """A part on its way through the stages: its images, and what was found in them so far."""

    name: str
    rows: NDArray[np.int64]
    table: pa.Table | None
    mirrored: NDArray[np.bool_] | None = None
    known: dict[str, NDArray[np.float32]] | None = None
    ids: list[str] = field(default_factory=list)
    found: list[Detected] = field(default_factory=list)

    def known_points(self, batch: Inputs) -> list[NDArray[np.float32]] | None:
        """Return the known points of each image, in the input frame; None if none are asked for."""
        if self.known is None:
            return None
        return [
            coordinates.apply(affine, self.known.get(image, _NOWHERE))
            for image, affine in zip(batch.ids, batch.crop_to_input, strict=True)
        ]

    def add(self, detected: list[Detected], batch: Inputs) -> None:
        """Keep the keypoints of a batch, in the crop frame."""
        self.ids += batch.ids
        self.found += [
            keypoints.in_crop(coordinates.invert(affine))
            for keypoints, affine in zip(detected, batch.crop_to_input, strict=True)
        ]


class _Worker:
    """Has the networks, and reads the images of parts."""

    def __init__(self, extraction: Extraction) -> None:
        self._work, self._networks = extraction, _networks(extraction)
        device = self._networks.placement.device
        self._ahead = extraction.ahead
        if self._ahead is None:
            self._ahead = 0 if device.type == "cpu" else _AHEAD
        threads = torch.get_num_threads()
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads > 1 else None

    def _read(self, part: str, rows: NDArray[np.int64]) -> _Part:
        """Read a part with all that belongs to its images."""
        work = self._work
        columns = ["image_id", "image", "box", *(["width", "height"] if work.described else [])]
        table = work.images.read_table(part, columns)
        mirrored = None
        if work.facings is not None:
            mirrored = work.facings.of(part, table["image_id"].take(rows).to_pylist()) < 0
        return _Part(part, rows, table, mirrored, self._known(part))

    def _known(self, part: str) -> dict[str, NDArray[np.float32]] | None:
        """Points of the last labels in the crop frame, by image; not all images need have some."""
        folder = self._work.known
        if folder is None or not folder.is_file(part):
            return None if folder is None else {}
        table = folder.read_table(part, ["image_id", "xy"])
        points = (np.asarray(xy, np.float32).reshape(-1, 2) for xy in table["xy"].to_pylist())
        return dict(zip(table["image_id"].to_pylist(), points, strict=True))

    def _batches(self, part: _Part) -> Iterator[Inputs]:
        """Yield the images of a part, as they face one way."""
        start = 0
        for batch in make_inputs(part.table, part.rows, self._work.config, self._decoders):
            end = start + len(batch.ids)
            yield batch if part.mirrored is None else batch.mirrored(part.mirrored[start:end])
            start = end

    def _begin(self, part: _Part, batch: Inputs) -> Pending:
        assert self._work.threshold is not None, "the threshold is calibrated first"
        return self._networks.extractor.begin(batch.images, self._work.threshold, part.known_points(batch))

    def _collect(self, pending: Pending, batch: Inputs) -> list[Detected]:
        """Return the keypoints of a batch, in the input frame."""
        detected = pending.keypoints()
        if self._work.config.detection.inside_box:
            detected = [keypoints.inside(box) for keypoints, box in zip(detected, batch.boxes, strict=True)]
        return detected


class CalibratePart(_Worker):
    """A worker that measures the images of a part of the sample, and keeps the values on storage."""

    def __init__(self, extraction: Extraction, what: str) -> None:
        super().__init__(extraction)
        self._measure = {SCORES: self._scores, FROZEN: self._frozen}[what]
        self._kept = extraction.features / CALIBRATION / what

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, float]:
        """Measure a part."""
        read = self._read(part, rows)
        values = np.concatenate([self._measure(batch) for batch in self._batches(read)])
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        self._kept.write_table(part, pa.table({"value": column}))
        return {"values": len(values)}

    def _scores(self, batch: Inputs) -> NDArray[np.float32]:
        boxes = batch.boxes if self._work.config.detection.inside_box else None
        return self._networks.extractor.scores(batch.images, boxes)[:, None]

    def _frozen(self, batch: Inputs) -> NDArray[np.float32]:
        assert self._work.threshold is not None
        detected = self._collect(self._networks.extractor.begin(batch.images, self._work.threshold), batch)
        return np.concatenate(describe_detected(self._networks.frozen, batch.images, detected))


class ExtractPart(_Worker):
    """A worker that extracts the keypoints of parts; those that are on storage are left as they are."""

    def __init__(self, extraction: Extraction) -> None:
        super().__init__(extraction)
        self._blend = None
        if extraction.frozen_share:
            self._blend = FrozenDescriptors.read(extraction.projection_folder, self._networks.frozen)

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, float]:
        """Extract one part: see `stream`."""
        [facts] = self.stream([(part, rows)])
        return facts

    def stream(self, items: Iterable[tuple[str, NDArray[np.int64]]]) -> Iterator[dict[str, float]]:
        """Extract parts and yield what was found in each, when it is on storage; see `parts.results`."""
        parts = in_background((self._load(*item) for item in items), 1, "read")
        batches = self._all_batches(parts)
        if self._ahead:
            batches = in_background(batches, self._ahead, "decode")
        with closing(batches), Afterwards[dict[str, float]](_BEHIND, "write") as after:
            for part, batch in batches:
                if batch is None:
                    after.finish(self._finish, part)
                else:
                    self._pass_on(part, batch, after)
                yield from after.finished()
            yield from after.finished(wait=True)

    def _load(self, part: str, rows: NDArray[np.int64]) -> _Part:
        is_done = features.is_whole if self._work.described else Folder.is_whole
        if is_done(self._work.features, part):
            return _Part(part, rows, None)
        return self._read(part, rows)

    def _all_batches(self, parts: Generator[_Part]) -> Generator[tuple[_Part, Inputs | None]]:
        """Yield the batches of parts, each with its part, and None after the last of a part."""
        with closing(parts):
            for part in parts:
                if part.table is not None:
                    for batch in self._batches(part):
                        yield part, batch
                yield part, None

    def _pass_on(self, part: _Part, batch: Inputs, after: Afterwards[dict[str, float]]) -> None:
        """Give the device a batch; what it finds is collected by the thread that writes."""
        pending = self._begin(part, batch)
        if self._blend is None:
            after.call(lambda: part.add(self._collect(pending, batch), batch))
            return
        blended = self._blend.beside(self._collect(pending, batch), batch.images)
        after.call(part.add, blended, batch)

    def _finish(self, part: _Part) -> dict[str, float]:
        """Write a part, unless it is on storage; return what was found."""
        if part.table is None:
            counts, score = self._stored(part.name)
        else:
            counts, score = self._write(part)
        ends = np.cumsum(counts)[:-1]
        peaks = [float(image.max(initial=0)) for image in np.split(score, ends)]
        return {"images": len(counts), "keypoints": int(counts.sum()), "mean_peak": float(np.mean(peaks))}

    def _stored(self, part: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the number of keypoints of each image of a part on storage, and their scores."""
        if self._work.described:
            stored = features.read_keypoints(self._work.features, part)
            return stored.counts, stored.score
        column = self._work.features.read_table(part, ["score"])["score"].combine_chunks()
        return column.value_lengths().to_numpy().astype(np.int64), column.flatten().to_numpy()

    def _write(self, part: _Part) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Write a part; return the number of keypoints of each image, and their scores."""
        assert part.table is not None
        counts = np.array([len(k.xy) for k in part.found], np.int64)
        xy, score, *descriptors = (
            np.concatenate([getattr(k, name) for k in part.found])
            for name in ("xy", "score", "descriptors", "descriptors_flipped")
        )
        if self._work.described:
            sizes = crop_sizes(part.table.select(["width", "height"]).take(part.rows))
            table = features_table(part.ids, sizes, counts, xy, score, *descriptors)
            features.write_features(self._work.features, part.name, table)
        else:
            self._work.features.write_table(part.name, keypoints_table(part.ids, counts, xy, score))
        return counts, score
