"""Measures the rates of `kplm bench scale` on this machine: what a core does, what a start costs, what a small network takes.

Each rate has a function here that asks the code which a run uses. All times but those of starts are of the CPU, so that other
work on the machine changes them little.
"""

from __future__ import annotations

import io
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.analysis.training_time import time_training
from ray_kplm.bench.extraction import OneExtractor, SleepingNetwork
from ray_kplm.bench.kmeans_speed import IMAGE_POINTS, write_features
from ray_kplm.bench.scale_network import stage1_cost
from ray_kplm.bench.timing import REPEATS
from ray_kplm.config import Config, RunLimits
from ray_kplm.correspondence.faiss_import import faiss
from ray_kplm.correspondence.outliers import KNNOutlierScore
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.update import update as cluster
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.crops import decode_crop, letterbox
from ray_kplm.imaging.synthetic.category import Settings, rows
from ray_kplm.imaging.synthetic.kinds import DEFAULT
from ray_kplm.imaging.view_parameters import draw_views
from ray_kplm.methods import build_method
from ray_kplm.methods.labels import cluster_labels
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.parts import ThisProcess
from ray_kplm.progress import ignore_progress
from ray_kplm.schemas import IMAGES
from ray_kplm.steps.extract import extract
from ray_kplm.steps.extract_part import Extraction, ExtractPart
from ray_kplm.steps.keypoint_sample import FindKeypoints
from ray_kplm.storage import Folder

_IMAGES, _VIEWS = 64, 320
"""Rendered images, and the views of them that are timed."""
_DESCRIPTORS, _PART_IMAGES = 50_000, 200
"""Descriptors that are clustered, and images of their parts."""
_TIMED_IMAGES = 16
"""Images that the timed steps of a small network see."""


def render_images(folder: Folder, size: int, count: int = _IMAGES) -> Folder:
    """Render images with boxes as a part of a dataset's images; no Ray is needed. Return the folder."""
    rendered = list(rows(range(count), Settings(DEFAULT, size, 0, False, 0, True)))
    identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    columns = {
        **{name: [row[name] for row in rendered] for name in ("image_id", "image", "width", "height")},
        "box": [row["bbox"] for row in rendered],
        "crop_to_source": [identity] * count,
        **{name: [None] * count for name in ("sequence", "frame", "source_width", "source_height")},
    }
    folder.write_table("part-00000.parquet", pa.table(columns, schema=IMAGES))
    return folder


def core_rates(config: Config, images: Folder) -> dict[str, float]:
    """Return the rates of one core, of everything but the network. To be called in a process with one thread.

    Args:
        config: The run's.
        images: A folder of images with boxes, as of `render_images`.
    """
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return (
            _image_rates(config, images)
            | _detection_rate(config, images)
            | {"prepared": 1 / _beside_network(config, images, Folder.at(folder) / "extraction")}
            | _clustering_rates(config, Folder.at(folder))
        )


def network_rates(config: Config, images: Folder) -> dict[str, float]:
    """Return the rates of the network on the CPU, with the batch share and the threads of one training worker.

    To be called in as many processes at a time as there are workers.
    """
    stored = images.read_table(images.parts()[0], ["image", "box"]).slice(0, _TIMED_IMAGES)
    pictures = [decode_crop(image) for image in stored["image"]]
    boxes = [None if box is None else np.array(box, np.float64) for box in stored["box"].to_pylist()]
    step = time_training(config, pictures, boxes, len(pictures)).stage1_step
    cost, workers = stage1_cost(config), config.compute.worker_range.max
    with tempfile.TemporaryDirectory() as folder:
        image = _extraction_seconds(config, images, Folder.at(folder) / "own")
        beside = _beside_network(config, images, Folder.at(folder) / "small")
    return {
        "train_flop": 2 * config.stage1.batch_size / workers * cost.train / step,
        "forward_flop": 2 * cost.forward / max(image - beside, image / 10),
    }


def link_rates(rank: int, workers: int, meeting: str, parameters: int) -> dict[str, float]:
    """Return the rates of an all-reduce between processes of this machine, by Gloo. To be called by all ranks at a time.

    Args:
        rank: Of this process.
        workers: Number of processes.
        meeting: A file that does not exist yet, where they find each other.
        parameters: Number of float32 values that are summed.
    """
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    try:
        values, one = torch.zeros(parameters), torch.zeros(1)
        small = _median(lambda: torch.distributed.all_reduce(one), 50)
        large = _median(lambda: torch.distributed.all_reduce(values), 50)
    finally:
        torch.distributed.destroy_process_group()
    size = 2 * (workers - 1) / workers * 4 * parameters
    return {"node_link": size / max(large - small, 1e-6), "reduce_latency": small / np.log2(workers)}


def machine() -> str:
    """Return the CPU's name, and whether it has the wide and the bf16 instructions that speeds depend on."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            facts = dict(line.strip().split(":", 1) for line in lines if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())} ({' '.join(flags)})"


def _image_rates(config: Config, images: Folder) -> dict[str, float]:
    """Return the views that a core makes in a second, from encoded images, and the inputs of the network that it decodes."""
    table = images.read_table(images.parts()[0], ["image", "box"])
    encoded = [table["image"][i % len(table)] for i in range(_VIEWS)]
    boxes = [box if box is None else np.array(box, np.float64) for box in table["box"].to_pylist()]
    size, parameters = (
        config.network.image_size,
        draw_views(config.augment, np.arange(_VIEWS), np.arange(_VIEWS) % 2 == 1),
    )
    make = Augmenter(config.augment, size)

    def beside(number: int) -> Boxed | None:
        own, other_box = boxes[number % len(boxes)], boxes[(number + 1) % len(boxes)]
        if not parameters.paste[number] or own is None or other_box is None:
            return None
        return Boxed(own, decode_crop(encoded[(number + 1) % _VIEWS]), other_box)

    def batch(chosen: range) -> object:
        crops, boxed = (decode_crop(encoded[i]) for i in chosen), (beside(i) for i in chosen)
        return make.views(parameters.rows(slice(chosen.start, chosen.stop)), crops, boxed=boxed)

    batch(range(1))
    return {
        "views": _VIEWS / _cpu_seconds(lambda: batch(range(_VIEWS))),
        "decoded": 1 / _mean_seconds(lambda number: letterbox(decode_crop(encoded[number]), size), _VIEWS),
    }


def _detection_rate(config: Config, images: Folder) -> dict[str, float]:
    """Return the images whose generic keypoints a core finds in a second, with the rule of outliers."""
    find, part = FindKeypoints(images, images, config.keypoints, config.seed), images.parts()[0]
    chosen = np.arange(len(images.read_table(part, ["image_id"])))
    _, found = find(part, chosen[:2])
    dim = next((keypoints.descriptors.shape[1] for keypoints in found if keypoints.descriptors is not None), 0)
    rng = np.random.default_rng(0)
    outliers = KNNOutlierScore(_unit(rng, config.keypoints.outlier_sample, dim)) if dim else None

    def detect() -> None:
        for keypoints in find(part, chosen)[1]:
            if outliers is not None and keypoints.descriptors is not None:
                outliers.distance(keypoints.descriptors)

    return {"detected": len(chosen) / _cpu_seconds(detect)}


def _extraction_seconds(config: Config, images: Folder, folder: Folder) -> float:
    """Return the CPU seconds of an image in an extraction by an untrained network, with reading and writing."""
    method, part = build_method(config), images.parts()[0]
    rows = np.arange(len(images.read_table(part, ["image_id"])))
    everything, sample = Selection([part], [rows]), Selection([part], [rows[:_TIMED_IMAGES]])
    buffer = io.BytesIO()
    torch.save({"network": method.objective(1).network().state_dict()}, buffer)
    (folder / "network").write_bytes(NETWORK, buffer.getvalue())

    def extracted(selection: Selection, features: str) -> float:
        began = time.process_time()
        work = Extraction(method, 1, folder / "network", images, sample, 1.0, folder / features)
        extract(work, selection, workers=ThisProcess())
        return time.process_time() - began

    some = extracted(sample, "some")  # the network is built, and the sample measured, in both
    return max(extracted(everything, "all") - some, 1e-9) / (len(rows) - _TIMED_IMAGES)


def _beside_network(config: Config, images: Folder, folder: Folder) -> float:
    """Return the CPU seconds of an image in what extraction does beside the network: with one that does nothing."""
    part = images.parts()[0]
    rows = np.arange(len(images.read_table(part, ["image_id"])))
    points = round(config.detection.points_per_landmark * config.method.landmarks)
    nothing: Any = OneExtractor(config, SleepingNetwork(0.0, config.network.descriptor_dim, points))
    weights = KeypointNetwork(replace(config.network, width=16, depth=1, groups=4)).state_dict()
    buffer = io.BytesIO()
    torch.save({"network": weights}, buffer)
    (folder / "network").write_bytes(NETWORK, buffer.getvalue())
    work = Extraction(
        nothing, 1, folder / "network", images, Selection([part], [rows[:1]]), 1.0, folder / "features", threshold=0.1
    )
    worker = ExtractPart(work)

    def extracted() -> None:
        (folder / "features").delete()
        for _ in worker.stream([(part, rows)]):
            pass

    return _cpu_seconds(extracted) / len(rows)


def _clustering_rates(config: Config, folder: Folder) -> dict[str, float]:
    """Return the rates of a shard with one thread, of the starts of K-means, and of the labels that are read."""
    write_features(folder / "features", _DESCRIPTORS, config.network.descriptor_dim, part_images=_PART_IMAGES)
    parts = [f"part-{i:05d}.parquet" for i in range(-(-_DESCRIPTORS // (2 * IMAGE_POINTS * _PART_IMAGES)))]
    shard = _TimedShard(DescriptorShard(folder / "features", parts, memory_bytes=2**34, seed=0))
    unlimited = replace(config, limits=RunLimits(0, 0), clustering=replace(config.clustering, fit_points=0))
    began = time.process_time()
    update = cluster(shard, folder / "labels", unlimited, 1, ignore_progress)
    seconds = time.process_time() - began
    fits = ((update.contents.keypoints, update.landmark_objectives), (update.filtered.kept, update.cluster_objectives))
    passed = sum(2 * keypoints * len(objectives) for keypoints, objectives in fits)
    beside = sum(shard.seconds[name] for name in _BESIDE_FITS)
    columns = ["xy", "landmark", "cluster", "cluster_flipped"]
    labelled = _cpu_seconds(lambda: cluster_labels((folder / "labels").read_tables(parts, columns)))
    return {
        "fitted": passed / shard.seconds["partial"],
        "clustered": update.contents.keypoints / beside,
        "trials": max(seconds - beside - shard.seconds["partial"], 1e-3),
        "labels": update.filtered.images / labelled,
    }


_BESIDE_FITS = ("begin", "begin_fit", "filter_landmarks", "label")
"""What a shard is asked for besides fits and their starts."""


class _TimedShard:
    """A shard in this process as `sharded_kmeans.Shards`, which keeps the CPU seconds of each method."""

    def __init__(self, shard: DescriptorShard) -> None:
        self._shard = shard
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Return the result of a method of the shard."""
        began = time.process_time()
        result = getattr(self._shard, method)(*arguments)
        self.seconds[method] += time.process_time() - began
        return [result]


def _unit(rng: np.random.Generator, count: int, dim: int) -> NDArray[np.float32]:
    """Return random vectors of unit length: (count, dim)."""
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _mean_seconds(call: Callable[[int], object], times: int) -> float:
    """Return the mean CPU seconds of calling a function with 0, 1, ...: of all, since some views cost more than others."""
    began = time.process_time()
    for number in range(times):
        call(number)
    return (time.process_time() - began) / times


def _cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of the fastest of some calls."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return max(min(seconds), 1e-9)


def _median(call: Callable[[], Any], times: int) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))
