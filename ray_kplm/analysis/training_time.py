"""How long a run would take on this machine: real training steps and extractions, timed and multiplied by the schedule.

No Ray: the steps run in this process, with the threads that one training worker would have.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.crops import letterbox
from ray_kplm.methods import build_method
from ray_kplm.methods.batch import Views
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.trainer import Learner, Objective, Schedule, load_weights
from ray_kplm.network.compute import Placement

_SECONDS = 5.0
"""Longest time of each measurement, once it has three values."""
_STEPS, _EXTRACTED = 12, 16
"""Most training steps that are timed, and images of a timed extraction."""
_POINTS = 15
"""Points of an image in the timed steps; their number hardly matters."""


@dataclass(frozen=True)
class TrainingTime:
    """The expected seconds of the parts of a run, and what they were computed from.

    Attributes:
        stage1: Seconds of the warm-up and the rounds.
        stage2: Seconds of the landmark detector.
        extraction: Seconds of the extractions between them.
        stage1_step: Seconds of one training step of a worker in stage 1, without the making of views.
        stage2_step: The same of stage 2.
        view: Seconds in which one core makes a view.
        image: Seconds in which one extraction worker describes an image.
    """

    stage1: float
    stage2: float
    extraction: float
    stage1_step: float
    stage2_step: float
    view: float
    image: float

    @property
    def seconds(self) -> float:
        """Seconds of the run, without clustering, which is short, and starting."""
        return self.stage1 + self.stage2 + self.extraction

    def figures(self) -> dict[str, float]:
        """Return all numbers by name, `hours` among them."""
        return {"hours": self.seconds / 3600, **asdict(self)}


def time_training(
    config: Config,
    images: Sequence[NDArray[np.uint8]],
    boxes: Sequence[NDArray[np.float64] | None],
    train_images: int,
) -> TrainingTime:
    """Time the training of a configuration on this machine. It takes less than a minute with the ready configurations for CPUs.

    Args:
        config: Of the run; `method.kind` is kplm or merge.
        images: Some crops of the dataset, RGB (H, W, 3) of any sizes.
        boxes: The objects in these, (4,), pixels of the crop; None where unknown.
        train_images: Number of training images of the dataset.
    """
    method, compute, cores = build_method(config), config.compute, os.cpu_count() or 1
    workers = compute.worker_range.max
    gpu = torch.cuda.is_available() and compute.gpus_per_worker > 0
    placement = Placement.choose(compute, torch.device("cuda" if gpu else "cpu"))
    before = torch.get_num_threads()
    torch.set_num_threads(compute.threads or max(1, cores // workers))
    try:
        pairs, singles = 2 * max(1, method.round_batch // workers), max(1, method.landmark_batch // workers)
        views, view = _views(config, images, boxes, max(pairs, singles))
        learner = random_learner(config, method.objective(1), placement, len(images), config.method.clusters)
        step1 = _step_seconds(learner, _some(views, pairs))
        extractor = method.extractor(load_weights(learner.state()), placement, 1)
        inputs = np.stack([letterbox(image, config.network.image_size)[0] for image in images[:_EXTRACTED]])
        image = _seconds(lambda: extractor.begin(inputs, 0.5).keypoints(), gpu) / len(inputs)
        landmarks = random_learner(
            config,
            method.landmark_objective(config.method.landmarks),
            placement,
            len(images),
            config.method.landmarks,
        )
        step2 = _step_seconds(landmarks, _some(views, singles))
    finally:
        torch.set_num_threads(before)
    # On CPUs, the making of views and the training share the cores; beside a GPU they overlap.
    cores_for_views = min(cores, workers * compute.data_workers) if gpu else cores

    def training(step: float, worker_views: int) -> float:
        making = worker_views * workers * view / cores_for_views
        waiting = step * max(1.0, workers * max(1, compute.threads) / cores) if not gpu else step
        return max(waiting, making) if gpu else waiting + making

    extracted = sum(min(method.round_images(number), train_images) for number in range(config.stage1.rounds + 1))
    return TrainingTime(
        stage1=method.round_first(config.stage1.rounds + 1) * training(step1, pairs),
        stage2=method.phase_bounds(method.num_phases - 1)[1] * training(step2, singles),
        extraction=extracted * image / compute.extract_workers,
        stage1_step=step1,
        stage2_step=step2,
        view=view,
        image=image,
    )


def _views(
    config: Config, images: Sequence[NDArray[np.uint8]], boxes: Sequence[NDArray[np.float64] | None], count: int
) -> tuple[Views, float]:
    """Return random views of the images, and the seconds in which one core makes one."""
    cv2.setNumThreads(1)
    make = Augmenter(config.augment, config.network.image_size)
    rng, made, seconds = np.random.default_rng(config.seed), [], []
    index = rng.integers(0, len(images), max(count, 8))
    for number, own in enumerate(index.tolist()):
        other = int(rng.integers(len(images)))
        box, other_box = boxes[own], boxes[other]
        boxed = None if box is None or other_box is None else Boxed(box, images[other], other_box)
        began = time.process_time()
        made.append(make(images[own], number, bool(number % 2), None, boxed))
        seconds.append(time.process_time() - began)
    views = Views(
        picture=np.stack([view.picture for view in made]),
        image=index,
        flip=np.arange(len(index)) % 2 == 1,
        crop_to_view=np.stack([view.crop_to_view for view in made]),
        shifts=np.stack([view.shifts for view in made]),
    )
    return views, float(np.median(seconds))


def _some(views: Views, count: int) -> Views:
    """Return the first views."""
    first = slice(count)
    return Views(
        views.picture[first], views.image[first], views.flip[first], views.crop_to_view[first], views.shifts[first]
    )


def random_learner(config: Config, objective: Objective, placement: Placement, images: int, identities: int) -> Learner:
    """Return a training at its start, of random points: the time of a step does not depend on where they are.

    Args:
        config: Of the run.
        objective: What is minimised.
        placement: Of the network.
        images: Number of images that have points.
        identities: Number of clusters or landmarks.
    """
    rng = np.random.default_rng(config.seed)
    points = min(_POINTS, identities)
    xy = rng.uniform(8, config.network.image_size - 8, (images, points, 2)).astype(np.float32)
    identity = np.stack([rng.permutation(identities)[:points] for _ in range(images)]).astype(np.int32)
    labels = Labels(xy, identity, identity, np.ones((images, points), bool))
    return Learner(objective, labels, Schedule(0, 1_000_000, ()), placement, (config.seed,))


def _step_seconds(learner: Learner, views: Views) -> float:
    numbers = iter(range(1_000))
    on_gpu = learner.placement.device.type == "cuda"
    return _seconds(lambda: [float(value) for value in learner.step(next(numbers), views).values()], on_gpu)


def _seconds(call: Callable[[], object], on_gpu: bool) -> float:
    """Return the median seconds of a call, after one that is not timed: memory is allocated and kernels are chosen in it."""
    call()
    began, clock = time.perf_counter(), _clock(on_gpu)
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < _STEPS and time.perf_counter() - began < _SECONDS):
        started = clock()
        call()
        seconds.append(clock() - started)
    return float(np.median(seconds))


def _clock(on_gpu: bool) -> Callable[[], float]:
    """Return a clock in seconds. On CPUs it is that of the threads' work: what else the machine does hardly counts."""
    return time.perf_counter if on_gpu else lambda: time.process_time() / torch.get_num_threads()
