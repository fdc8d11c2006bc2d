"""The steps of a run in terms of the run directory: what each reads, where it writes, what it says."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.datasets.sequences import read_frames
from ray_kplm.errors import CollapseError
from ray_kplm.imaging.crops import decode, letterbox
from ray_kplm.keypoints import LEARNED
from ray_kplm.methods import build_method
from ray_kplm.methods.channels import CHANNELS, Channels, landmark_state
from ray_kplm.methods.labels import Labels, cluster_labels, keypoint_labels, landmark_labels
from ray_kplm.methods.sampling import Plan
from ray_kplm.methods.trainer import NETWORK, Objective, Schedule
from ray_kplm.progress import ProgressDisplay
from ray_kplm.run import MANIFEST, Run, Step
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.runtime.kmeans_actors import cluster_with_actors
from ray_kplm.runtime.map_parts import Pool
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import TrainWorkerPool
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.steps.align import Aligning, align_points
from ray_kplm.steps.detect import detect
from ray_kplm.steps.extract import Extraction, calibration_sample, extract
from ray_kplm.steps.graph import Steps
from ray_kplm.steps.merge import Merging, merge_channels
from ray_kplm.steps.update_labels import Relabelling, relabel
from ray_kplm.storage import Folder
from ray_kplm.tracking import Tracker

_DETECT, _FORWARD, _TRAIN = 1.0, 1.5, 4.0
"""Rough cost of an image: found keypoints in, run through the network, trained on. For the time left only."""


_STAGE1, _STAGE2 = 1, 2

_TRACKED = (
    "points_per_image",
    "training_points_per_image",
    "usable_images",
    "landmark_objective",
    "cluster_objective",
)
"""Facts of an update that MLflow keeps as metrics."""


class Discovery:
    """Each step is skipped if it is done, continued if it was begun, and done otherwise."""

    def __init__(self, run: Run, dataset: Dataset, progress: Callable[[dict[str, float]], ProgressDisplay]) -> None:
        self.run, self.dataset, self.config = run, dataset, run.config
        self.method = build_method(run.config)
        self._steps = Steps(run, dataset, self.method)
        self._progress = progress(self._weights())
        self._tracker: Tracker | None = None
        self._pool = TrainWorkerPool(run.config.compute, run.folder)

    def report_to(self, tracker: Tracker) -> None:
        """Send metrics there from now on, and show what it has to say."""
        self._tracker = tracker
        tracker.set_logger(self._progress.print_line)

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Training workers that are there when they are needed, and gone after the block."""
        compute = self.run.resolved.compute
        self._progress.print_line(f"networks run in {compute.precision}, channels_last: {compute.channels_last}")
        try:
            yield
        except Exception:
            self._pool.close()
            raise
        self._pool.close()  # not after Ctrl-C, which does not wait for what they do: they end with this process

    def tidy(self) -> None:
        """Delete what a finished run needs no more, in case the process was killed after the last step."""
        self._pool.close()

    def track_round(self, number: int, metrics: dict[str, float]) -> None:
        """Numbers about a finished round, for MLflow."""
        if self._tracker:
            self._tracker.log_metrics(metrics, self._iteration(number))

    def is_finished(self) -> bool:
        """Whether the landmark detector is there. Raises RunError if any step was made under another configuration."""
        return [step.manifest() for step in self._steps][-1] is not None

    # -- the steps

    def detect_keypoints(self) -> None:
        """Generic keypoints of the images that the warm-up trains on."""
        step = self._steps.keypoints
        if self._is_done(step):
            return
        self._progress.begin(_key(step), f"generic keypoints ({self.config.keypoints.detector})")
        compute = self.config.compute
        gpus = compute.gpus_per_worker if self.config.keypoints.detector in LEARNED else 0.0
        facts = detect(
            self.dataset.images(TRAIN),
            self.dataset.landmarks(TRAIN),
            step.folder,
            self._steps.selection(0),
            self.config.keypoints,
            self.config.seed,
            Pool(compute.detect_workers or os.cpu_count() or 1, gpus=gpus),
            self._progress.advance,
            described=self.method.clusters_keypoints,
        )
        self._check_keypoints(facts)
        self._progress.set_points_per_image(facts["points_per_image"])
        self._finish(step, facts, {"keypoints_per_image": facts["points_per_image"]}, 0)

    def _check_keypoints(self, facts: dict[str, Any]) -> None:
        least = self.config.limits.min_points_per_image
        if facts["points_per_image"] < least:
            raise CollapseError(
                f"{facts['points_per_image']:.2f} generic keypoints an image, fewer than limits.min_points_per_image = "
                f"{least}; look at keypoints.detector, keypoints.limit and keypoints.outlier_share"
            )

    def label_keypoints(self) -> None:
        """Where the warm-up trains on clusters: those of the generic keypoints' own descriptors."""
        step = self._steps.first_labels
        if step is None or self._is_done(step):
            return
        self._progress.begin(_key(step), "generic keypoints: clustering")
        self._pool.prepare(self.method.round_batch)
        seed = self.config.stage1.rounds + 1  # that of no round
        parts = self._steps.selection(0).parts
        facts = cluster_with_actors(
            self._steps.keypoints.folder, parts, step.folder, step.folder.parent, self.method, seed,
            progress=self._progress.advance,
        )  # fmt: skip
        self._progress.set_points_per_image(facts["points_per_image"])
        self._finish(step, facts, _metrics(facts), 0)

    def train_round(self, number: int) -> None:
        """Detector and descriptors, on the round's labels; in round 0 on the generic keypoints."""
        step = self._steps.train[number]
        if self._is_done(step):
            return
        selection = self._steps.selection(number)
        labels = self._steps.labels[number - 1] if number else self._steps.first_labels
        if labels and self.method.describes:
            joint = number > 0 and self.method.single_stage
            flip_map = read_clusters(labels.folder.parent)["flip_map"] if joint else None
            points = _clusters(labels.folder, selection.parts, flip_map)
        else:
            points = _keypoints((labels or self._steps.keypoints).folder, selection.parts)
        fresh = number == 0 or self.method.restarts
        start = None if fresh else (self._steps.train[number - 1].folder, "continue")
        frames = read_frames(self.dataset.images(TRAIN), selection) if self.dataset.has_sequences else None
        plan = self.method.round_plan(number, points.usable(), frames)
        schedule = self.method.round_schedule(number)
        title = self._round_title(number)
        self._train(
            step, title, self.method.objective(number), points, plan, schedule, selection, start, (_STAGE1, number)
        )

    def update_pseudo_labels(self, number: int) -> None:
        """Pseudo-labels for the next round: extract with the frozen network and, where it describes what it finds, cluster."""
        labels = self._steps.labels[number]
        if not self.method.describes:
            self._extract(labels, number)
            return
        features = self._steps.features[number]
        if self._is_done(labels):
            self._progress.skip(_key(features))
            self._drop_features(features)  # in case the process was killed just before
            return
        self._extract(features, number)
        self._progress.begin(_key(labels), f"{self._round_title(number)}: clustering")
        before = self._steps.labels[number - 1].folder.parent if number and self.method.continues_clusters else None
        extracted = features.folder.read_json(MANIFEST)
        labels.begin()  # its time is that of clustering
        if number < self.config.stage1.rounds:
            self._pool.prepare(self.method.round_batch)
        elif not self.method.single_stage:
            self._pool.prepare(self.method.landmark_batch)
        parts, target = self._steps.selection(number + 1).parts, labels.folder.parent
        facts = cluster_with_actors(
            features.folder, parts, labels.folder, target, self.method, number, before, self._progress.advance
        )
        facts |= {"threshold": extracted["threshold"], "extraction_seconds": extracted["seconds"]}
        self._progress.set_points_per_image(facts["points_per_image"])
        warning = _warning(facts.get("static_landmarks", []))
        self._finish(labels, facts, _metrics(facts), self._iteration(number), warning)
        self._drop_features(features)

    def _extract(self, step: Step, number: int) -> None:
        """What a round's network finds in the images of the next."""
        if self._is_done(step):
            return
        self._progress.begin(_key(step), f"{self._round_title(number)}: extracting keypoints")
        selection, detection = self._steps.selection(number + 1), self.config.detection
        extraction = Extraction(
            build_method(self.run.resolved),
            number,
            self._steps.train[number].folder,
            self.dataset.images(TRAIN),
            calibration_sample(selection, self.config),
            detection.points_per_landmark if number else detection.warmup_points_per_landmark,
            step.folder,
            self._steps.labels[number - 1].folder if number and self.method.keeps_points else None,
        )
        facts = extract(extraction, selection, self._progress.advance)
        values = {name: facts[name] for name in ("threshold", "detected_per_image", "mean_peak")}
        self._progress.set_points_per_image(facts["detected_per_image"])
        self._finish(step, facts, values, self._iteration(number), f"threshold {facts['threshold']:.4f}")

    def _drop_features(self, features: Step) -> None:
        """Descriptors are large, and once clustered nothing reads them."""
        if not self.config.keep_features:
            features.folder.delete()

    def align(self) -> None:
        """Where clustering did not tell which keypoints correspond: the points of one image are the template of all others."""
        step = self._steps.aligned
        if step is None or self._is_done(step):
            return
        self._progress.begin(_key(step), "aligning with a template")
        points = self._steps.labels[-1].folder
        aligning = Aligning(self.config, self.dataset.images(TRAIN), points, step.folder)
        facts = align_points(aligning, self._landmark_images(), self._progress.advance)
        self._progress.set_points_per_image(facts["points_per_image"])
        text = f"{len(facts['label_counts'])} points of {facts['template']}, {facts['usable_images']} images fit"
        self._finish(step, facts, _metrics(facts), self._iteration(self.config.stage1.rounds), text)

    def train_landmarks(self) -> None:
        """Stage 2: a channel for each of the last labels' landmarks. Where the generation pauses, channels that follow one
        point become one, or what was found are the next labels."""
        if self.method.single_stage:
            self.export_joint_head()
            return
        labels = self._steps.landmark_labels(0).folder
        counts = np.array(labels.read_json(MANIFEST)["label_counts"])
        clusters = read_clusters(labels.parent) if self.method.describes else {}
        channels = self.method.first_channels(clusters, counts)
        start = (self._steps.train[-1].folder, "head")
        for stretch, (trained, after) in enumerate(self._steps.stretches):
            self._train_channels(trained, stretch, channels, start)
            if self.method.pause == "merge":
                channels = self._merge_channels(after, stretch, trained, channels, counts)
                start = (after.folder, "continue")
            else:
                self._relabel(after, stretch, trained, channels)
        self._train_channels(self._steps.landmarks, len(self._steps.stretches), channels, start)

    def export_joint_head(self) -> None:
        """The detector that was trained in the rounds, out of the last round's network."""
        step, trained_on = self._steps.landmarks, self._steps.labels[-2]
        if self._is_done(step):
            return
        self._progress.begin(_key(step), "stage 2: taken from the last round")
        counts = np.array(trained_on.folder.read_json(MANIFEST)["label_counts"])
        channels = self.method.first_channels(read_clusters(trained_on.folder.parent), counts)
        step.folder.write_json(CHANNELS, channels.to_dict())
        step.folder.write_bytes(NETWORK, landmark_state(self._steps.train[-1].folder.read_bytes(NETWORK)))
        self._finish(step, {}, {}, self._iteration(self.config.stage1.rounds))

    def _train_channels(self, step: Step, stretch: int, channels: Channels, start: tuple[Folder, str]) -> None:
        if self._is_done(step):
            return
        step.folder.write_json(CHANNELS, channels.to_dict())
        selection = self._landmark_images()
        labels = _landmarks(self._steps.landmark_labels(stretch).folder, selection.parts, channels)
        plan = self.method.landmark_plan(labels.usable(), stretch)
        schedule = self.method.landmark_schedule(stretch)
        objective = self.method.landmark_objective(len(channels))
        of = f", {stretch + 1} of {len(self._steps.stretches) + 1}" if self._steps.stretches else ""
        title = f"stage 2, {len(channels)} channels{of}"
        begin = None if self.method.restarts else start
        self._train(step, title, objective, labels, plan, schedule, selection, begin, (_STAGE2, stretch))

    def _merge_channels(
        self, step: Step, stretch: int, trained: Step, channels: Channels, counts: np.ndarray
    ) -> Channels:
        if self._is_done(step):
            return Channels.from_dict(step.folder.read_json(CHANNELS))
        self._progress.begin(_key(step), f"stage 2: merging {len(channels)} channels")
        named = channels.landmark_to_channel != NONE
        sizes = np.bincount(channels.landmark_to_channel[named], counts[named], len(channels))
        merging = Merging(self.run.resolved, trained.folder, self.dataset.images(TRAIN), channels)
        left, facts = merge_channels(
            merging,
            step.folder,
            sizes,
            self._landmark_images(),
            self._progress.advance,
        )
        self._finish(step, facts, {"channels": len(left)}, self._landmark_iteration(stretch + 1), f"{len(left)} left")
        return left

    def _relabel(self, step: Step, stretch: int, trained: Step, channels: Channels) -> None:
        if self._is_done(step):
            return
        self._progress.begin(_key(step), "stage 2: labels for the next detector")
        work = Relabelling(self.run.resolved, trained.folder, self.dataset.images(TRAIN), channels, step.folder)
        facts = relabel(work, self._landmark_images(), self._progress.advance)
        self._progress.set_points_per_image(facts["points_per_image"])
        self._finish(step, facts, _metrics(facts), self._landmark_iteration(stretch + 1))

    def _landmark_images(self) -> Selection:
        return self._steps.selection(self.config.stage1.rounds + 1)

    def _train(
        self,
        step: Step,
        title: str,
        objective: Objective,
        labels: Labels,
        plan: Plan,
        schedule: Schedule,
        selection: Selection,
        start: tuple[Folder, str] | None,
        seed: tuple[int, ...],
    ) -> None:
        self._progress.begin(_key(step), title)
        images = RoundImages.load(self.dataset.images(TRAIN), selection)
        stage = seed[0]
        first = self._landmark_iteration(seed[1]) if stage == _STAGE2 else self.method.round_first(seed[1])
        listener = TrainingLogger(self._progress, self._tracker, title, plan.iterations, first, stage)
        seeds = (self.config.seed, *seed)
        training = Training(self.run.resolved, objective, labels, plan, schedule, images, start, seeds)
        manifest = self._pool.train(step, training, listener.trained)
        self._progress.finish(f"loss {manifest['metrics']['loss']:.4f}")

    def examples(self, count: int = 2) -> NDArray[np.uint8]:
        """The first training images as the landmark detector takes them: uint8 (count, S, S, 3)."""
        folder, size = self.dataset.images(TRAIN), self.config.network.image_size
        stored = (e for part in self.dataset.parts(TRAIN) for e in folder.read_table(part, ["image"])["image"])
        return np.stack([letterbox(decode(encoded), size)[0] for encoded in itertools.islice(stored, count)])

    # -- helpers

    def _round_title(self, number: int) -> str:
        return "warm-up" if number == 0 else f"round {number}/{self.config.stage1.rounds}"

    def _iteration(self, number: int) -> int:
        """Global iteration at the end of a round."""
        return self.method.round_first(number + 1)

    def _landmark_iteration(self, stretch: int) -> int:
        """Global iteration at the beginning of a stretch of stage 2."""
        return self._iteration(self.config.stage1.rounds) + self.method.landmark_first(stretch)

    def _is_done(self, step: Step) -> bool:
        manifest = step.manifest()
        if manifest is None:
            step.begin()
            return False
        self._progress.skip(_key(step))
        if "points_per_image" in manifest:
            self._progress.set_points_per_image(manifest["points_per_image"])
        return True

    def _finish(
        self, step: Step, facts: dict[str, Any], metrics: dict[str, float], iteration: int, text: str = ""
    ) -> None:
        step.finish(**facts)
        if self._tracker:
            self._tracker.log_metrics(metrics, iteration)
        self._progress.finish(text)

    def _weights(self) -> dict[str, float]:
        stage1, stage2 = self.config.stage1, self.config.stage2
        weights = {_key(self._steps.keypoints): self._steps.images(0) * _DETECT}
        for number in range(stage1.rounds + 1):
            iterations = stage1.round_iterations if number else stage1.warmup_iterations
            weights[_key(self._steps.train[number])] = iterations * self.method.round_views * stage1.batch_size * _TRAIN
            for step in self._steps.features[number : number + 1]:
                weights[_key(step)] = self._steps.images(number + 1) * _FORWARD * 2
            weights[_key(self._steps.labels[number])] = self._steps.images(number + 1) * _FORWARD / 2
        if self._steps.first_labels:
            weights[_key(self._steps.first_labels)] = self._steps.images(0) * _FORWARD / 2
        images = self._steps.images(stage1.rounds + 1)
        if self._steps.aligned:
            weights[_key(self._steps.aligned)] = images * _FORWARD / 2
        for _, step in self._steps.stretches:
            weights[_key(step)] = images * _FORWARD
        trainings = [train for train, _ in self._steps.stretches] + [self._steps.landmarks]
        for stretch, step in enumerate(trainings):
            iterations = 0 if self.method.single_stage else self.method.landmark_iterations(stretch)
            weights[_key(step)] = iterations * stage2.batch_size * _TRAIN
        return weights


class TrainingLogger:
    """What the workers tell, for the display and for MLflow."""

    def __init__(
        self, progress: ProgressDisplay, tracker: Tracker | None, title: str, iterations: int, first: int, stage: int
    ) -> None:
        self._progress, self._tracker, self._first, self._iterations = progress, tracker, first, iterations
        self._prefix = f"stage{stage}"

    def trained(self, iteration: int, metrics: dict[str, float]) -> None:
        share = iteration / self._iterations
        self._progress.advance(share, f"iteration {iteration}/{self._iterations} · loss {metrics['loss']:.4f}")
        if self._tracker:
            named = {f"{self._prefix}/{name}": value for name, value in metrics.items()}
            self._tracker.log_metrics(named, self._first + iteration)


def _metrics(facts: dict[str, Any]) -> dict[str, float]:
    return {name: facts[name] for name in _TRACKED if name in facts}


def _warning(static: list[int]) -> str:
    if not static:
        return ""
    return f"landmarks that stand still, maybe background: {static}; method.drop_static=true leaves such out"


def _key(step: Step) -> str:
    return step.folder.path


def _keypoints(folder: Folder, parts: list[str]) -> Labels:
    return keypoint_labels(folder.read_tables(parts, ["xy"]))


def _clusters(folder: Folder, parts: list[str], flip_map: np.ndarray | None) -> Labels:
    return cluster_labels(folder.read_tables(parts, ["xy", "landmark", "cluster", "cluster_flipped"]), flip_map)


def _landmarks(folder: Folder, parts: list[str], channels: Channels) -> Labels:
    return landmark_labels(folder.read_tables(parts, ["xy", "score", "landmark"]), channels)
