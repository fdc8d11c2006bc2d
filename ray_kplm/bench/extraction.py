"""`kplm bench extraction`: how the stages of an extraction overlap, and what its features cost to write and to read."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.bench.counted_storage import CountedStorage
from ray_kplm.bench.timing import REPEATS
from ray_kplm.config import Config
from ray_kplm.correspondence.features import features_table, file_of, read_features, write_features
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.update import update
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.methods import build_method
from ray_kplm.methods.base import Method
from ray_kplm.methods.extractor import KeypointExtractor, Pending
from ray_kplm.methods.inputs import make_inputs
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.network.compute import Placement
from ray_kplm.network.heatmaps import Peaks
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.parts import ThisProcess
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.report.text_table import align
from ray_kplm.steps.extract import extract
from ray_kplm.steps.extract_part import Extraction, ExtractPart
from ray_kplm.storage import Folder

_PART_IMAGES = 256
_AHEAD = 3
_POINTS = 30
"""Keypoints of an image."""
_MEGABYTE = 1e6
_HOLDS, _HOLDS_NOTHING = 2**34, 2**20
"""Memory budgets of a clustering, bytes."""


@dataclass(frozen=True)
class Sizes:
    """What is extracted.

    Attributes:
        images: Number of images of the run with a network that sleeps.
        computed: Number of images of the run with a real one.
        features: Number of keypoints whose features are written, read and clustered.
    """

    images: int = 4096
    computed: int = 128
    features: int = 60_000


def bench(config: Config, sizes: Sizes, progress: ProgressCallback) -> dict[str, Any]:
    """Measure the stages of an extraction, its features, and a clustering of these.

    Args:
        config: Names the network, and the number of landmarks.
        sizes: Of the work.
        progress: Called before each measurement.

    Returns:
        Among others `overlap`, the time of the longest stage alone by the time of all together, where the network sleeps as
        long as the longest other stage takes; `reads_per_feature_byte`, the bytes that a clustering whose memory budget holds
        the features reads, by those that are stored; `images_per_s` of a real network on this machine; and megabytes a second
        of one core that features are written and read with, as Arrow and as Parquet.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Folder.at(name)
        progress(0.0, f"{sizes.images} images, a network that sleeps")
        found = _overlap(config, root / "stages", sizes.images)
        progress(0.4, f"{sizes.computed} images, a real network")
        found |= _computed(config, root / "computed", sizes.computed)
        progress(0.7, f"{sizes.features} keypoints, written and read")
        table = _features(sizes.features, config.network.descriptor_dim)
        found |= _speed(root / "speed", table)
        progress(0.8, f"{sizes.features} keypoints, clustered")
        found |= _reads(config, name, table)
    progress(1.0, "done")
    return {**found, "seconds": time.monotonic() - began}


def lines(found: dict[str, Any]) -> list[str]:
    """Return the results of `bench` as a text table."""
    table = [["", "Arrow", "Parquet", "ratio"]]
    for text, name in (("write, MB/s a core", "write_mb_s"), ("read, MB/s a core", "read_mb_s")):
        row = [found[name], found[f"parquet_{name}"]]
        table.append([text, *(f"{value:.0f}" for value in row), f"{row[0] / row[1]:.1f}"])
    return [
        f"overlap of the stages: {found['overlap']:.2f}",
        f"images a second, with the network on this machine: {found['images_per_s']:.1f}",
        f"reads of each byte by a clustering: {found['reads_per_feature_byte']:.2f} within the memory budget, "
        f"{found['reads_per_feature_byte_without_memory']:.2f} without memory",
        *align(table),
    ]


# -- stages


@dataclass(frozen=True)
class SleepingNetwork:
    """A network that is an accelerator to the stages: it sleeps, and finds the same keypoints in each image."""

    pause_s: float
    dim: int
    points: int = _POINTS

    def scores(self, images: NDArray[np.uint8], boxes: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return no heights."""
        return np.zeros(0, np.float32)

    def begin(
        self, images: NDArray[np.uint8], threshold: float, known: list[NDArray[np.float32]] | None = None
    ) -> Pending:
        """Sleep, and return the same keypoints for each image."""
        time.sleep(self.pause_s)
        shape = (len(images), self.points)
        descriptors = torch.full((*shape, self.dim), self.dim**-0.5, dtype=torch.float16)
        peaks = Peaks(torch.ones(*shape, 2), torch.full(shape, 0.5), torch.ones(shape, dtype=torch.bool))
        return Pending(peaks, descriptors, descriptors)


@dataclass(frozen=True)
class OneExtractor:
    """What an extraction asks of a method."""

    config: Config
    made: KeypointExtractor

    def extractor(self, weights: Any, placement: Placement, round_number: int) -> KeypointExtractor:
        """Return the extractor, whatever the weights are."""
        return self.made


def _overlap(config: Config, root: Folder, images: int) -> dict[str, float]:
    """Time decoding and writing alone, and all stages with a network that sleeps as long as the longer of both."""
    config = replace(config, compute=replace(config.compute, threads=1))
    selection, network = _write_images(config, root / "images", images), _write_network(config, root / "train")
    dim, batch = config.network.descriptor_dim, config.compute.batch_images
    batches = sum(-(-len(rows) // batch) for rows in selection.rows)

    def worker(pause_s: float) -> ExtractPart:
        method: Any = OneExtractor(config, SleepingNetwork(pause_s, dim))
        work = _extraction(method, network, root / "images", selection, root / "features")
        return ExtractPart(replace(work, threshold=0.1, ahead=_AHEAD))

    def decode() -> None:
        for part, rows in zip(selection.parts, selection.rows, strict=True):
            for _ in make_inputs((root / "images").read_table(part), rows, config):
                pass

    def write() -> None:
        found = SleepingNetwork(0.0, dim).begin(np.zeros((_PART_IMAGES, 1, 1, 3), np.uint8), 0.0).keypoints()
        for part, rows in zip(selection.parts, selection.rows, strict=True):
            write_features(root / "alone", part, _table([str(row) for row in rows], found[: len(rows)]))

    def together(pause_s: float) -> None:
        (root / "features").delete()
        for _ in worker(pause_s).stream(zip(selection.parts, selection.rows, strict=True)):
            pass

    alone, walls = [], []
    for _ in range(REPEATS):  # in turns, since other work on the machine comes and goes
        stages = [_seconds(decode), _seconds(write)]
        longest = max(stages)
        walls.append(_seconds(partial(together, longest / batches)))
        alone.append((*stages, longest))
    best = int(np.argmax([times[2] / wall for times, wall in zip(alone, walls, strict=True)]))
    return {
        "overlap": alone[best][2] / walls[best],
        "overlap_median": float(np.median([times[2] / wall for times, wall in zip(alone, walls, strict=True)])),
        "decode_s": alone[best][0],
        "write_s": alone[best][1],
        "network_s": alone[best][2],
        "together_s": walls[best],
    }


def _computed(config: Config, root: Folder, images: int) -> dict[str, float]:
    """Time an extraction with a network of random weights in this process, which has all cores."""
    config = replace(config, compute=ThisProcess().layout(config.compute))
    selection, network = _write_images(config, root / "images", images), _write_network(config, root / "train")
    work = _extraction(build_method(config), network, root / "images", selection, root / "features")
    few = Selection(selection.parts[:1], [selection.rows[0][: config.compute.batch_images]])
    extract(replace(work, features=root / "first", key="first"), few, workers=ThisProcess())
    seconds = _seconds(lambda: extract(work, selection, workers=ThisProcess()))
    return {"images_per_s": (images + work.sample.images) / seconds}


def _extraction(method: Method, network: Folder, images: Folder, selection: Selection, features: Folder) -> Extraction:
    return Extraction(method, 1, network, images, selection.sample(64, (0,), 2), 2.0, features)


def _write_images(config: Config, folder: Folder, images: int) -> Selection:
    """Write parts of smooth random pictures of the network's size, as JPEG."""
    rng, side = np.random.default_rng(0), config.network.image_size
    pictures = [cv2.resize(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), (side, side)) for _ in range(32)]
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    rows = [min(_PART_IMAGES, images - start) for start in range(0, images, _PART_IMAGES)]
    parts = [f"part-{number:05d}.parquet" for number in range(len(rows))]
    for part, count in zip(parts, rows, strict=True):
        columns = {
            "image_id": [f"{part}/{i}" for i in range(count)],
            "image": [encoded[i % len(encoded)] for i in range(count)],
            "box": pa.nulls(count, pa.list_(pa.float32())),
            "width": pa.array([side] * count, pa.int32()),
            "height": pa.array([side] * count, pa.int32()),
        }
        folder.write_table(part, pa.table(columns))
    return full_selection(parts, rows)


def _write_network(config: Config, folder: Folder) -> Folder:
    torch.manual_seed(0)
    with folder.writing(NETWORK) as stream:
        torch.save({"network": KeypointNetwork(config.network).state_dict()}, stream)
    return folder


# -- features


def _table(ids: Sequence[str], found: Sequence[Any]) -> pa.Table:
    counts = np.array([len(one.xy) for one in found], np.int64)
    joined = [np.concatenate([getattr(one, name) for one in found]) for name in ("xy", "score")]
    descriptors = [
        np.concatenate([getattr(one, name) for one in found]) for name in ("descriptors", "descriptors_flipped")
    ]
    return features_table(list(ids), np.full((len(ids), 2), 128), counts, *joined, *descriptors)


def _features(keypoints: int, dim: int) -> pa.Table:
    """Return a part of random unit descriptors."""
    rng, images = np.random.default_rng(0), max(1, keypoints // _POINTS)
    centres = rng.standard_normal((50, dim), np.float32)
    counts, count = np.full(images, _POINTS), images * _POINTS

    def unit() -> NDArray[np.float16]:
        vectors = centres[rng.integers(0, 50, count)] + rng.standard_normal((count, dim), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float16)

    xy, score = rng.uniform(0, 127, (count, 2)), rng.random(count)
    names, sizes = [f"{i}.png" for i in range(images)], np.full((images, 2), 128)
    return features_table(names, sizes, counts, xy, score, unit(), unit())


def _speed(folder: Folder, table: pa.Table) -> dict[str, float]:
    """Measure the time of a core in which features are written and read, whole, as Arrow and as Parquet."""
    part, calls = "part-00000.parquet", dict[str, Callable[[], Any]]()
    calls["write_mb_s"] = lambda: write_features(folder, part, table)
    calls["parquet_write_mb_s"] = lambda: (folder / "parquet").write_table(part, table)
    calls["read_mb_s"] = lambda: read_features(folder, part)
    calls["parquet_read_mb_s"] = lambda: read_features(folder / "parquet", part)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            began = time.process_time()
            call()
            seconds[name].append(time.process_time() - began)
    return {name: table.nbytes / _MEGABYTE / min(values) for name, values in seconds.items()}


class _Shards:
    """Shards in this process."""

    def __init__(self, folder: Folder, parts: list[str], memory_bytes: int) -> None:
        self._shards = [DescriptorShard(folder, parts[i::2], memory_bytes=memory_bytes, seed=0) for i in range(2)]

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(shard, method)(*arguments) for shard in self._shards]


def _reads(config: Config, path: str, table: pa.Table) -> dict[str, float]:
    """Count the bytes that a clustering reads of features on an object store, by those that are stored."""
    storage = CountedStorage()
    features, per_part = storage.folder(f"{path}/features"), max(1, len(table) // 8)
    parts = [f"part-{number:05d}.parquet" for number in range(-(-len(table) // per_part))]
    for number, part in enumerate(parts):
        write_features(features, part, table.slice(number * per_part, per_part))
    stored = sum(features.size(file_of(part)) for part in parts)
    found = {}
    for name, memory_bytes in (("", _HOLDS), ("_without_memory", _HOLDS_NOTHING)):
        storage.read_bytes.clear()
        labels = Folder.at(f"{path}/labels{name}")
        update(_Shards(features, parts, memory_bytes), labels, config, 1, ignore_progress)
        found[f"reads_per_feature_byte{name}"] = storage.read_bytes.total() / stored
    return found


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
