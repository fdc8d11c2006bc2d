"""Forward and backward NME: how well discovered and annotated landmarks predict each other (thesis 2.6).

N training and Nt test images, K discovered and L annotated landmarks, P inputs and Q targets of a regressor.
Coordinates may be in any unit, the same for points and normaliser: ridge and error are both relative to it.
Where image sizes differ, divide by the image's side first. NaN marks what is not detected or not annotated.
All errors are in percent of the normaliser.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.completion import drop_unobserved, fill_with, observed_means

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# The ridge of the thesis's released code, as a share of the largest entry of X'X.
FORWARD_RIDGE = 0.001
BACKWARD_RIDGE = 0.1
_FULL_RANK = 1e-10  # from this ridge on X'X can be inverted as it is, which is much faster


@dataclass(frozen=True)
class Regressor:
    """Predicts y_mean (Q,) at x_mean (P,) and changes by weights (P, Q)."""

    x_mean: Floats
    y_mean: Floats
    weights: Floats

    def predict(self, x: ArrayLike) -> Floats:
        """(N, P) -> (N, Q); NaN for targets that had no training row."""
        return self.y_mean + (np.asarray(x, dtype=np.float64) - self.x_mean) @ self.weights


@dataclass(frozen=True)
class NmeResult:
    """An error in percent of the normaliser, over the test points that have one.

    mean: over landmarks, of each one's mean over images, so that it is the end of the cumulative curve.
    sd: population standard deviation of that mean over the draws of training images; 0 for one draw.
    per_landmark: (L,) forward, (K,) backward; mean over images and draws, NaN where nothing was scored.
    train_images: annotated images each regressor was fitted on.
    test_images: test images with at least one point scored.
    left_out: test points not scored: no reference position or no normaliser, or in some draw no training row.
    errors: (Nt, L) forward, (Nt, K) backward; mean over draws, NaN where not scored.
    """

    mean: float
    sd: float
    per_landmark: Floats
    train_images: int
    test_images: int
    left_out: int
    errors: Floats

    @property
    def per_image(self) -> Floats:
        """(Nt,): mean over the landmarks scored in the image, NaN where none is."""
        return observed_means(self.errors.T)


def fit_regressor(x: ArrayLike, y: ArrayLike, ridge: float) -> Regressor:
    """Least squares without bias between centred sides, `ridge * max(X'X)` on the diagonal.

    x: (N, P), complete. y: (N, Q), NaN where missing; each target is fitted on the rows that have it.
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(
            f"{int((~np.isfinite(x)).sum())} input coordinates are NaN: a regressor needs all of them; "
            "fill them with complete_landmarks first"
        )
    present = np.isfinite(y)
    x_mean, y_here = observed_means(x), observed_means(y)
    x = x - x_mean
    gram = x.T @ x
    # A target's sum of x (y - its mean) needs no mean of x: what is subtracted from y sums to 0 over the target's rows.
    cross = x.T @ np.where(present, y - y_here, 0.0)
    y_mean = np.full(y.shape[1], np.nan)
    weights = np.zeros((x.shape[1], y.shape[1]))
    for rows, columns in _groups_by_presence(present):
        x_here, gram_here = _centred_gram(x, gram, rows)
        weights[:, columns] = _solve(gram_here, cross[:, columns], ridge)
        y_mean[columns] = y_here[columns] - x_here @ weights[:, columns]
    return Regressor(x_mean, y_mean, weights)


def forward_nme(
    train_xy: ArrayLike,
    train_truth: ArrayLike,
    test_xy: ArrayLike,
    test_truth: ArrayLike,
    test_normaliser: ArrayLike,
    *,
    train_images: int | None = None,
    draws: int = 10,
    seed: int = 0,
    ridge: float = FORWARD_RIDGE,
) -> NmeResult:
    """Error of the annotated landmarks predicted from the discovered ones.

    train_xy, test_xy: (N, K, 2) and (Nt, K, 2), complete (complete_landmarks fills what was not detected).
    train_truth, test_truth: (N, L, 2) and (Nt, L, 2). test_normaliser: (Nt,).
    train_images: how many annotated training images each draw takes; None, or too many, is all of them.
    """
    return _nme_over_draws(
        np.asarray(train_xy, dtype=np.float64),
        np.asarray(train_truth, dtype=np.float64),
        np.asarray(test_xy, dtype=np.float64),
        np.asarray(test_truth, dtype=np.float64),
        np.asarray(test_normaliser, dtype=np.float64),
        _draw_rows(_has_points(train_truth), train_images, draws, seed),
        ridge,
    )


def backward_nme(
    train_xy: ArrayLike,
    train_truth: ArrayLike,
    test_xy: ArrayLike,
    test_truth: ArrayLike,
    test_normaliser: ArrayLike,
    *,
    train_images: int | None = None,
    draws: int = 10,
    seed: int = 0,
    ridge: float = BACKWARD_RIDGE,
) -> NmeResult:
    """Error of the discovered landmarks predicted from the annotated ones, on images that show them.

    Arguments as for forward_nme, but train_xy and test_xy may hold NaN: each landmark is fitted and scored on
    the images in which it was detected. Annotations missing from an annotated image are the training mean of
    that landmark; an image without any annotation is left out.
    """
    train_truth, kept = drop_unobserved(train_truth)
    test_truth = np.asarray(test_truth, dtype=np.float64)[:, kept]
    means = observed_means(train_truth)
    targets = np.where(_has_points(test_truth)[:, None, None], np.asarray(test_xy, dtype=np.float64), np.nan)
    return _nme_over_draws(
        fill_with(train_truth, means),
        np.asarray(train_xy, dtype=np.float64),
        fill_with(test_truth, means),
        targets,
        np.asarray(test_normaliser, dtype=np.float64),
        _draw_rows(_has_points(train_truth) & _has_points(train_xy), train_images, draws, seed),
        ridge,
    )


def mean_shape_nme(train_truth: ArrayLike, test_truth: ArrayLike, test_normaliser: ArrayLike) -> NmeResult:
    """Baseline that ignores the image: every annotated landmark is put at its training mean in the crop.

    train_truth: (N, L, 2). test_truth: (Nt, L, 2). test_normaliser: (Nt,).
    """
    train_truth = np.asarray(train_truth, dtype=np.float64)
    errors = _percent_errors(
        observed_means(train_truth),
        np.asarray(test_truth, dtype=np.float64),
        np.asarray(test_normaliser, dtype=np.float64),
    )
    return _summarise(errors[None], int(_has_points(train_truth).sum()))


def cumulative_curve(per_landmark: ArrayLike) -> Floats:
    """Errors (L,) -> (L',): sorted from the best, running mean (the thesis's CED), without NaN.

    Entry i is the mean error of the i + 1 best landmarks, so the last one is the mean over all of them.
    """
    errors = np.asarray(per_landmark, dtype=np.float64)
    errors = np.sort(errors[np.isfinite(errors)])
    return np.cumsum(errors) / np.arange(1, len(errors) + 1)


def _solve(gram: Floats, cross: Floats, ridge: float) -> Floats:
    """(P, P), (P, Q) -> (P, Q) weights; minimum norm, as inputs may stand still or repeat each other."""
    # X'X is positive semi-definite: its largest entry is on the diagonal. 0 if there is no input at all.
    largest = gram.diagonal().max(initial=0.0)
    gram = gram + ridge * largest * np.eye(len(gram))
    if ridge > _FULL_RANK and largest > 0:
        return np.asarray(np.linalg.solve(gram, cross), dtype=np.float64)
    return np.asarray(np.linalg.lstsq(gram, cross)[0], dtype=np.float64)


def _centred_gram(x: Floats, gram: Floats, rows: Bools) -> tuple[Floats, Floats]:
    """The mean (P,) of some rows and X'X (P, P) of these about it. x: (N, P), whose columns have mean 0. gram: x'x.

    Where most rows are taken, the others are taken away: the cost is that of what is missing.
    """
    if rows.all():
        return np.zeros(x.shape[1]), gram
    if 2 * rows.sum() < len(rows):
        mean = observed_means(x[rows])
        centred = x[rows] - mean
        return mean, centred.T @ centred
    others = x[~rows]
    count = rows.sum()
    mean = -others.sum(axis=0) / count
    return mean, gram - others.T @ others - count * np.outer(mean, mean)


def _groups_by_presence(present: Bools) -> Iterator[tuple[Bools, NDArray[np.intp]]]:
    """(N, Q) -> (rows (N,), columns) of targets present in the same rows; without those that have no row."""
    patterns, group_of_column = np.unique(present, axis=1, return_inverse=True)
    for group, pattern in enumerate(patterns.T):
        if pattern.any():
            yield pattern, np.flatnonzero(group_of_column.ravel() == group)


def _has_points(xy: ArrayLike) -> Bools:
    """(N, L, 2) -> (N,): whether the image has any point at all."""
    return np.isfinite(np.asarray(xy)).all(axis=-1).any(axis=-1)


def _draw_rows(eligible: Bools, count: int | None, draws: int, seed: int) -> list[NDArray[np.intp]]:
    """Training rows of every draw, without replacement; a single draw where all rows are wanted."""
    rows = np.flatnonzero(eligible)
    if draws < 1 or (count is not None and count < 1):
        raise ConfigError(
            f"draws={draws}, train_images={count}: both must be at least 1; raise them, or give None for all images"
        )
    if count is None or count >= len(rows):
        return [rows]
    generator = np.random.default_rng(seed)
    return [np.sort(generator.choice(rows, size=count, replace=False)) for _ in range(draws)]


def _nme_over_draws(
    train_inputs: Floats,
    train_targets: Floats,
    test_inputs: Floats,
    test_targets: Floats,
    test_normaliser: Floats,
    drawn_rows: list[NDArray[np.intp]],
    ridge: float,
) -> NmeResult:
    """Inputs (N, A, 2) and (Nt, A, 2), complete; targets (N, B, 2) and (Nt, B, 2), NaN where missing."""
    test_flat = _flatten(test_inputs)
    errors = np.empty((len(drawn_rows), *test_targets.shape[:2]))
    for draw, rows in enumerate(drawn_rows):
        regressor = fit_regressor(_flatten(train_inputs[rows]), _flatten(train_targets[rows]), ridge)
        predicted = regressor.predict(test_flat).reshape(test_targets.shape)
        errors[draw] = _percent_errors(predicted, test_targets, test_normaliser)
    return _summarise(errors, len(drawn_rows[0]))


def _flatten(xy: Floats) -> Floats:
    """(N, A, 2) -> (N, 2A), also where N or A is 0."""
    return xy.reshape(len(xy), 2 * xy.shape[1])


def _percent_errors(predicted: Floats, truth: Floats, lengths: Floats) -> Floats:
    """(Nt, L, 2) or (L, 2), (Nt, L, 2), (Nt,) -> (Nt, L), percent of the normaliser."""
    return 100.0 * np.linalg.norm(predicted - truth, axis=-1) / lengths[:, None]


def _summarise(errors: Floats, train_images: int) -> NmeResult:
    """errors: (draws, Nt, L), NaN where not scored."""
    by_draw = observed_means(errors.swapaxes(0, 1))  # (draws, L)
    means = observed_means(by_draw.T)  # (draws,)
    per_landmark = observed_means(by_draw)
    scored: Bools = np.asarray(np.isfinite(errors).all(axis=0))
    return NmeResult(
        mean=float(observed_means(per_landmark)),
        sd=float(means.std()),
        per_landmark=per_landmark,
        train_images=train_images,
        test_images=int(scored.any(axis=1).sum()),
        left_out=int((~scored).sum()),
        errors=observed_means(errors),
    )
