"""`kplm bench suggest`: how much the choice of the labelled images matters, simulated with the labels of annotated datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.contact_sheet import predict_images_of
from ray_kplm.analysis.predictions import stored_landmarks_of
from ray_kplm.analysis.suggest import describe
from ray_kplm.analysis.suggestion_pool import DatasetPool
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.landmark_arrays import landmark_arrays
from ray_kplm.errors import DataError
from ray_kplm.evaluation.annotation import LandmarkSet, Scoring, annotated_set
from ray_kplm.evaluation.completion import complete_landmarks, observed_means
from ray_kplm.imaging.coordinates import in_square
from ray_kplm.points.fit import LEAST_IMAGES, fit_points
from ray_kplm.points.selection import STRATEGIES, Strategy, select
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.report.text_table import align
from ray_kplm.run import Run
from ray_kplm.schemas import TEST, TRAIN

Floats = NDArray[np.float64]
BUDGETS = (5, 10, 20, 50, 100)
"""Numbers of labelled images."""
POOL_SHARE = 0.8
"""Share of the training images that each repetition chooses from, so that strategies without chance vary, too."""
_FIVE_OF_68 = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47), (30,), (48,), (54,))
"""Eye centres, tip of the nose and corners of the mouth among the 68 points of faces (iBUG)."""


class _Annotated(NamedTuple):
    """Landmarks and labels of the training and test images, shares of the side.

    Attributes:
        xy: (N, K, 2), complete.
        truth: (N, L, 2), NaN where not annotated.
        test_xy: (Nt, K, 2), complete.
        test_truth: (Nt, L, 2).
        normaliser: (Nt,), of the test images.
    """

    xy: Floats
    truth: Floats
    test_xy: Floats
    test_truth: Floats
    normaliser: Floats


def bench(
    uris: Sequence[str], repetitions: int, progress: ProgressCallback, strategies: Sequence[Strategy] = STRATEGIES
) -> dict[str, Any]:
    """Return the forward NME by number of labelled images and strategy, of finished runs on annotated datasets.

    In each repetition images are chosen from another share of the training images, their true labels are given to
    `points.fit.fit_points`, and the points of all test images are scored.

    Args:
        uris: The runs.
        repetitions: Number of repetitions.
        progress: Called as the work goes on.
        strategies: Of `points.selection.STRATEGIES`; `random` is what the others are compared with.

    Raises:
        RunError: A run is not finished.
        DataError: A dataset is not annotated.
    """
    found = {}
    for number, uri in enumerate(uris):
        run = Run.open(uri)
        dataset = Dataset.open(run.config.dataset)
        shown = _named(progress, run.folder.name, number / len(uris))
        every = describe(DatasetPool(dataset), np.arange(dataset.count(TRAIN)), run, progress=shown)
        seen = _Features(every.features, every.uncertainty)
        data = _annotated(run, dataset, every.turned)
        name = str(dataset.meta.get("name") or run.folder.name)
        for title, one in _point_sets(data).items():
            label = f"{name}: {title}"
            found[label] = _simulate(one, seen, repetitions, strategies, _named(progress, label, number / len(uris)))
    return {"repetitions": repetitions, "budgets": list(BUDGETS), "forward_nme": found}


def _named(progress: ProgressCallback, label: str, share: float) -> ProgressCallback:
    """Return a callback that shows what is simulated, at the share of the runs that are done."""
    return lambda _, text: progress(share, f"{label}: {text}")


class _Features(NamedTuple):
    """Of all training images: see `analysis.suggest.Described`."""

    features: Floats
    uncertainty: Floats


def _annotated(run: Run, dataset: Dataset, is_turned: NDArray[np.bool_]) -> _Annotated:
    """Return the annotation. Images that face the other way are turned, as points are fitted and found in such images.

    Args:
        run: The run.
        dataset: Its dataset.
        is_turned: (N,), which training images are turned.
    """
    scoring = Scoring(dataset.meta.get("nme") or {"type": "bbox_sqrt"})
    sets: dict[str, LandmarkSet] = {}
    for split in (TRAIN, TEST):
        if not dataset.count(split):
            raise DataError(f"{dataset.root}: has no {split} images to simulate with")
        arrays, everything = landmark_arrays(dataset, split), np.arange(dataset.count(split))
        seen = stored_landmarks_of(run, dataset, split) or predict_images_of(run, dataset, split, everything)
        found = in_square(seen.xy, arrays.sizes[:, None])
        annotated = annotated_set(arrays, scoring)
        truth, normaliser = in_square(annotated.truth, arrays.sizes[:, None]), annotated.in_image_sides().normaliser
        if split == TEST and is_turned.any():
            is_turned = describe(DatasetPool(dataset, TEST), everything, run).turned
        if is_turned.any():
            for points in (found, truth):
                points[is_turned, :, 0] = 1 - points[is_turned, :, 0]
        sets[split] = replace(annotated, discovered=found, truth=truth, normaliser=normaliser)
    train, test = sets[TRAIN], sets[TEST]
    xy, test_xy, _ = complete_landmarks(train.discovered, test.discovered)
    return _Annotated(xy, train.truth, test_xy, test.truth, test.normaliser)


def _point_sets(data: _Annotated) -> dict[str, _Annotated]:
    """Return the annotation, and of faces with 68 points also the five that most data sets have."""
    points = data.truth.shape[1]
    sets = {f"{points} points": data}
    if points == 68:
        five, test_five = (
            np.stack([truth[:, list(group)].mean(axis=1) for group in _FIVE_OF_68], axis=1)
            for truth in (data.truth, data.test_truth)
        )
        sets = {"5 points": data._replace(truth=five, test_truth=test_five)} | sets
    return sets


def _simulate(
    data: _Annotated,
    seen: _Features,
    repetitions: int,
    strategies: Sequence[Strategy],
    progress: ProgressCallback = ignore_progress,
) -> dict[str, Any]:
    """Return the errors of each strategy and number of labels: mean, standard deviation, and difference to random."""
    names: dict[Strategy, None] = dict.fromkeys([*strategies, "random"])
    errors = {name: np.empty((len(BUDGETS), repetitions)) for name in names}
    labelled = np.flatnonzero(np.isfinite(data.truth).all(axis=2).sum(axis=1))
    for seed in range(repetitions):
        progress(seed / repetitions, f"repetition {seed + 1} of {repetitions}")
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(labelled)[: int(POOL_SHARE * len(labelled))])
        for name, table in errors.items():
            for column, count in enumerate(BUDGETS):
                chosen = rows[select(seen.features[rows], seen.uncertainty[rows], count, name, seed)]
                table[column, seed] = _forward_nme(data, chosen)
    return {name: _summary(table, errors["random"]) for name, table in errors.items()}


def _forward_nme(data: _Annotated, chosen: NDArray[np.int64]) -> float:
    """Return the error, percent of the normaliser, of points that are fitted on the labels of the chosen images.

    A point that is labelled in too few of them for `fit_points` has its mean place there; one that is labelled in none of them
    has the middle of the landmarks.
    """
    xy, truth = data.xy[chosen], data.truth[chosen]
    counts = np.isfinite(truth).all(axis=2).sum(axis=0)
    predicted = np.repeat(data.test_xy.mean(axis=1, keepdims=True), truth.shape[1], axis=1)
    predicted[:, counts > 0] = observed_means(truth)[counts > 0]
    enough = counts >= LEAST_IMAGES
    if enough.any():
        predicted[:, enough] = fit_points(xy, truth[:, enough]).regressor.predict(data.test_xy)
    distances = 100 * np.linalg.norm(predicted - data.test_truth, axis=2) / data.normaliser[:, None]
    return float(np.mean(observed_means(distances)))


def _summary(errors: Floats, random: Floats) -> dict[str, list[float]]:
    gain = random - errors
    return {
        "mean": errors.mean(axis=1).tolist(),
        "sd": errors.std(axis=1).tolist(),
        "better_by": gain.mean(axis=1).tolist(),
        "better_in": (gain > 0).sum(axis=1).tolist(),
    }


def lines(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures as text: a table for each set of points."""
    text = [f"forward NME, %, mean and sd of {figures['repetitions']} repetitions, by number of labelled images"]
    for title, of_set in figures["forward_nme"].items():
        rows = [[title, *map(str, figures["budgets"])]]
        for name, found in of_set.items():
            rows.append(
                [name, *(f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(found["mean"], found["sd"], strict=True))]
            )
        text += ["", *align(rows)]
    return text
