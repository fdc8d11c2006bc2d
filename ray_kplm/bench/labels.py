"""`kplm bench labels`: error of annotated points by the number of labelled images, beside a network trained from scratch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.adapt_head import head_inputs, head_predictor, train_head
from ray_kplm.analysis.predictions import landmarks_of, stored_landmarks_of
from ray_kplm.bench.label_inputs import (
    Annotation,
    draw,
    group_partners,
    grouped,
    in_groups,
    nme,
    read_annotation,
    read_pixels,
)
from ray_kplm.bench.label_results import (
    HEAD,
    METHODS,
    REGRESSION,
    SCRATCH,
    TITLES,
    HalfWay,
    add_results,
    cell_key,
    stored_results,
    table,
)
from ray_kplm.bench.point_groups import Groups
from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.stored import detector_fingerprint
from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.completion import complete_landmarks, observed_means
from ray_kplm.imaging import coordinates
from ray_kplm.methods.inputs import worker_placement
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.predicted import Predictor
from ray_kplm.methods.predictors import LandmarkPredictor
from ray_kplm.methods.supervised import AnnotatedInputs, train_supervised
from ray_kplm.methods.trainer import Learner
from ray_kplm.points.fit import fit_points
from ray_kplm.points.stored import LANDMARKS
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

ALL, GROUPS = "all", "groups"
"""The annotated points, and the means of groups of them."""
_LEAST = 3
"""Labels that a map needs."""
_BATCH = 64
_RECENT, _SHOWN_EVERY, _STORED_EVERY = 50, 10, 100
"""Iterations over which the loss is averaged, after which it is shown, and after which the state of a training is stored."""

Scores = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        counts: Numbers of labelled images.
        seeds: Draws of these, for each method.
        iterations: Of the trainings from scratch; None: those of the run's stage 2.
        head_iterations: Of the trainings of a head.
        checkpoints: Times at which a network that is trained from scratch is scored. The best counts, in its favour.
        test_images: Most test images, drawn at random.
    """

    counts: tuple[int, ...]
    seeds: dict[str, int]
    iterations: int | None
    head_iterations: int
    checkpoints: int = 4
    test_images: int = 1000


def bench(
    run: Run, sizes: Sizes, groups: Groups | None, out: Folder, progress: ProgressCallback = ignore_progress
) -> dict[str, Any]:
    """Measure the test NME by method, number of labels and seed; what `out` has already is not measured again.

    All methods of a seed are given the same images, drawn at random; those of a smaller number are among those of a larger one.

    Args:
        run: A finished run on an annotated dataset.
        sizes: What is measured.
        groups: Points made of the annotated ones, which are scored too. The map and the head are fitted on them alone. The
            network from scratch is trained on all annotated points, and has the means of its points scored, in its favour.
        out: Folder of the results and their plot, which are written after every measurement.
        progress: Called as the work goes on.

    Raises:
        RunError: The run is not finished.
        DataError: The dataset is not annotated.
        ConfigError: `out` has results of another run, dataset or groups, or a number of labels cannot be had.
    """
    bench = _Bench.read(run, sizes, groups, out)
    about = bench.about()
    known = stored_results(out, about)["cells"]
    wanted = {cell_key(*one): one for one in bench.cells()}
    missing = {key: one for key, one in wanted.items() if key not in known}
    for number, (key, (method, count, seed, iterations)) in enumerate(missing.items()):
        part = part_of(progress, number / len(missing), (number + 1) / len(missing))
        scores = bench.measure(method, count, seed, iterations, part)
        cell = {"method": method, "labels": count, "seed": seed, "iterations": iterations, **scores}
        add_results(out, about, {key: cell})
    results = add_results(out, about, {})
    progress(1.0, f"all measurements: {out}")
    return {**results, "table": table(results["cells"].values())}


@dataclass(frozen=True, eq=False)
class _Bench:
    run: Run
    dataset: Dataset
    sizes: Sizes
    groups: Groups | None
    out: Folder
    train: Annotation
    test: Annotation
    test_inputs: AnnotatedInputs
    landmarks: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    """Of the train and the test images, shares of the input's side, complete; None if no map is fitted."""

    @classmethod
    def read(cls, run: Run, sizes: Sizes, groups: Groups | None, out: Folder) -> _Bench:
        config = run.resolved
        dataset, side = Dataset.open(config.dataset), config.network.image_size
        train, test = (read_annotation(dataset, split, side) for split in (TRAIN, TEST))
        most = len(train.rows)
        for count in sizes.counts:
            if not _LEAST <= count <= most:
                raise ConfigError(
                    f"labels {count}: there are {most} annotated training images; give from {_LEAST} to {most}"
                )
        if len(test.rows) > sizes.test_images:
            test = test.chosen(np.sort(draw(test, sizes.test_images, config.seed)))
        landmarks = None
        if sizes.seeds.get(REGRESSION):
            found = [_landmarks(run, dataset, split, of) for split, of in ((TRAIN, train), (TEST, test))]
            landmarks = complete_landmarks(*found)[:2]
        test_inputs = read_pixels(dataset, TEST, test, config)
        return cls(run, dataset, sizes, groups, out, train, test, test_inputs, landmarks)

    def about(self) -> dict[str, Any]:
        """Return what results depend on, beside the cell."""
        points = {ALL: self.test.xy.shape[1], **({} if self.groups is None else {GROUPS: len(self.groups)})}
        means = {name: np.broadcast_to(observed_means(self._of(name, self.train).xy), self._of(name, self.test).xy.shape)
                 for name in points}  # fmt: skip
        return {
            "detector": detector_fingerprint(self.run, LANDMARKS),
            "dataset": self.dataset.fingerprint,
            "points": points,
            "groups": None if self.groups is None else {name: list(of) for name, of in self.groups.items()},
            "test_images": len(self.test.rows),
            "mean_shape": {name: nme(mean, self._of(name, self.test)) for name, mean in means.items()},
        }

    def cells(self) -> list[tuple[str, int, int, int]]:
        """Return method, number of labels, seed and iterations of all measurements, the quickest first."""
        iterations = {
            REGRESSION: 0,
            HEAD: self.sizes.head_iterations,
            SCRATCH: self.sizes.iterations or self.run.config.stage2.iterations,
        }
        return [
            (method, count, seed, iterations[method])
            for method in METHODS
            for seed in range(self.sizes.seeds.get(method, 0))
            for count in self.sizes.counts
        ]

    def measure(self, method: str, count: int, seed: int, iterations: int, progress: ProgressCallback) -> Scores:
        """Return the scores of a cell: `nme` by kind of points, and the seconds of wall clock and processor."""
        rows = draw(self.train, count, seed)
        began, used = time.monotonic(), time.process_time()
        progress(0.0, f"{TITLES[method]}: {count} labels, seed {seed}")
        measure: dict[str, Callable[..., Scores]] = {
            REGRESSION: self._regression, HEAD: self._head, SCRATCH: self._scratch,
        }  # fmt: skip
        scores = measure[method](rows, seed, iterations, progress)
        return {**scores, "seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - used}

    def _regression(self, rows: NDArray[np.int64], seed: int, iterations: int, progress: ProgressCallback) -> Scores:
        assert self.landmarks is not None
        side, (train, test) = self.run.config.network.image_size, self.landmarks
        scores, recipes = {}, {}
        for name in self._kinds():
            fit = fit_points(train[rows], self._of(name, self.train).xy[rows] / side, seed=seed)
            scores[name] = nme(fit.regressor.predict(test) * side, self._of(name, self.test))
            recipes[name] = str(fit.recipe)
        return {"nme": scores, "recipes": recipes}

    def _head(self, rows: NDArray[np.int64], seed: int, iterations: int, progress: ProgressCallback) -> Scores:
        labelled = read_pixels(self.dataset, TRAIN, self.train.chosen(rows), self.run.resolved)
        scores = {}
        for name in self._kinds():
            xy, flip_map = self._of(name, self.train).xy[rows], self._partners(name, labelled.flip_map)
            data = head_inputs(self.run, labelled.images, xy, flip_map, labelled.boxes)
            learner = train_head(self.run, data, iterations=iterations, seed=seed, progress=progress)
            predicted = _predict(head_predictor(self.run, learner, flip_map), self.test_inputs)
            scores[name] = nme(predicted, self._of(name, self.test))
        return {"nme": scores}

    def _scratch(self, rows: NDArray[np.int64], seed: int, iterations: int, progress: ProgressCallback) -> Scores:
        config, half_way = self.run.resolved, HalfWay(self.out, cell_key(SCRATCH, len(rows), seed, iterations))
        data = read_pixels(self.dataset, TRAIN, self.train.chosen(rows), config)
        stops = {round(iterations * (i + 1) / self.sizes.checkpoints) for i in range(self.sizes.checkpoints)}
        done, state, trace = half_way.read()
        losses: list[float] = []

        def score(done: int, loss: float, learner: Learner) -> None:
            losses.append(loss)
            if done % _SHOWN_EVERY == 0:
                share, recent = done / iterations, float(np.mean(losses[-_RECENT:]))
                progress(share, f"from scratch: {len(rows)} labels · iteration {done}/{iterations} · loss {recent:.4f}")
            if done in stops:
                predicted = _predict(_scratch_predictor(config, learner, data.flip_map), self.test_inputs)
                recent = float(np.mean(losses[-_RECENT:]))
                trace.append({"iterations": done, "loss": recent, **self._scores(predicted)})
            if done in stops or done % _STORED_EVERY == 0:
                half_way.write(done, learner.state(), trace)

        objective = LandmarkObjective(config, data.xy.shape[1], from_scratch=True)
        placement = worker_placement(config.compute)
        if done < iterations:
            train_supervised(
                data, objective, placement, iterations=iterations, seed=seed, start=state, done=done, on_iteration=score
            )
        half_way.delete()
        return {"nme": {name: min(one[name] for one in trace) for name in self._kinds()}, "checkpoints": trace}

    def _scores(self, predicted: NDArray[np.float64]) -> dict[str, float]:
        """Return the NME of all points, and of the means of groups of them."""
        of = {ALL: predicted, **({} if self.groups is None else {GROUPS: grouped(predicted, self.groups)})}
        return {name: nme(xy, self._of(name, self.test)) for name, xy in of.items()}

    def _kinds(self) -> list[str]:
        return [ALL] if self.groups is None else [ALL, GROUPS]

    def _of(self, kind: str, annotation: Annotation) -> Annotation:
        return in_groups(annotation, self.groups if kind == GROUPS else None)

    def _partners(self, kind: str, flip_map: NDArray[np.int16]) -> NDArray[np.int16]:
        return flip_map if kind == ALL or self.groups is None else group_partners(self.groups, flip_map)


def _landmarks(run: Run, dataset: Dataset, split: str, annotation: Annotation) -> NDArray[np.float64]:
    """Return the run's landmarks in annotated images, shares of the input's side; they are predicted if the run has none."""
    found = stored_landmarks_of(run, dataset, split)
    if found is None:
        with session(run.config.compute):
            found = landmarks_of(run, dataset, split)
    side = run.config.network.image_size
    chosen = zip(annotation.crop_to_input, found.xy[annotation.rows], strict=True)
    return np.array([coordinates.apply(to, xy.astype(np.float64)) for to, xy in chosen]) / side


def _scratch_predictor(config: Config, learner: Learner, flip_map: NDArray[np.int16]) -> Predictor:
    flip = config.stage2.flip_at_test
    return LandmarkPredictor(config, learner.network.state_dict(), flip_map, learner.placement, flip=flip)


def _predict(predictor: Predictor, data: AnnotatedInputs) -> NDArray[np.float64]:
    """Return the points that a predictor finds in inputs, (N, L, 2), pixels of the inputs."""
    batches = [slice(first, first + _BATCH) for first in range(0, len(data), _BATCH)]
    return np.concatenate([predictor(data.images[b], data.boxes[b]).xy for b in batches]).astype(np.float64)
