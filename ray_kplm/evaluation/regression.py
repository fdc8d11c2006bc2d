"""Forward and backward NME: how well discovered and annotated landmarks predict each other (thesis section 2.6).

N training and Nt test images, K discovered and L annotated landmarks, P inputs and Q targets of a regressor.
Coordinates may be in any unit, the same for points and normaliser, as ridge and error are relative to it. Where image
sizes differ, divide by the image's side first. NaN marks points that are not detected or not annotated. All errors are in
percent of the normaliser.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.completion import drop_unobserved, fill_with, observed_means

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# The ridges of the thesis' released code, as a share of the largest entry of X'X.
FORWARD_RIDGE = 0.001
BACKWARD_RIDGE = 0.1
_FULL_RANK = 1e-10  # with at least this ridge X'X has full rank and is solved directly, which is much faster


@dataclass(frozen=True)
class Regressor:
    """A linear map: `y_mean` (Q,) plus the deviation from `x_mean` (P,) times `weights` (P, Q)."""

    x_mean: Floats
    y_mean: Floats
    weights: Floats

    def predict(self, x: ArrayLike) -> Floats:
        """Return the targets (N, Q) of inputs (N, P); NaN for targets that had no training row."""
        return self.y_mean + (np.asarray(x, dtype=np.float64) - self.x_mean) @ self.weights


@dataclass(frozen=True)
class NmeResult:
    """An error in percent of the normaliser, over the test points that can be scored.

    Attributes:
        mean: Mean over landmarks of each one's mean over images, which is the last value of the cumulative curve.
        sd: Population standard deviation of that mean over the draws of training images; 0 for one draw.
        per_landmark: (L,) forward, (K,) backward; mean over images and draws, NaN where nothing was scored.
        train_images: Number of annotated images each regressor was fitted on.
        test_images: Number of test images with at least one scored point.
        left_out: Number of test points not scored: they have no reference position, no normaliser, or in some draw no
            training row.
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
        """Mean error (Nt,) over the landmarks scored in each image, NaN for an image without any."""
        return observed_means(self.errors.T)


def fit_regressor(x: ArrayLike, y: ArrayLike, ridge: float) -> Regressor:
    """Fit least squares between the centred inputs and targets, with `ridge * max(X'X)` on the diagonal.

    Args:
        x: (N, P), complete.
        y: (N, Q), NaN where missing; each target is fitted on the rows that have it.
        ridge: Regularisation, as a share of the largest entry of X'X.

    Raises:
        ValueError: An input is NaN.
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(
            f"{int((~np.isfinite(x)).sum())} input coordinates are not finite: a regressor needs all of them; "
            "fill them with complete_landmarks first"
        )
    present = np.isfinite(y)
    x_mean, target_means = observed_means(x), observed_means(y)
    x = x - x_mean
    gram = x.T @ x
    # The inputs need not be centred on a target's rows here: the centred target sums to 0 over these rows.
    cross = x.T @ np.where(present, y - target_means, 0.0)
    y_mean = np.full(y.shape[1], np.nan)
    weights = np.zeros((x.shape[1], y.shape[1]))
    for rows, columns in groups_by_presence(present):
        rows_mean, rows_gram = _centred_gram(x, gram, rows)
        weights[:, columns] = _solve(rows_gram, cross[:, columns], ridge)
        y_mean[columns] = target_means[columns] - rows_mean @ weights[:, columns]
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
    """Return the error of the annotated landmarks predicted from the discovered ones.

    Args:
        train_xy: (N, K, 2), discovered landmarks, complete (`complete_landmarks` fills in what was not detected).
        train_truth: (N, L, 2), annotated landmarks.
        test_xy: (Nt, K, 2), complete.
        test_truth: (Nt, L, 2).
        test_normaliser: (Nt,).
        train_images: Number of annotated training images of each draw; None, or more than there are, for all.
        draws: Number of draws; a single one is made if all images are taken.
        seed: Seed of the draws.
        ridge: Regularisation, see `fit_regressor`.
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
    """Return the error of the discovered landmarks predicted from the annotated ones, on images that show them.

    The arguments are those of `forward_nme`, except that `train_xy` and `test_xy` may hold NaN: each landmark is fitted and
    scored on the images in which it was detected. Annotations missing from an annotated image are replaced by the training
    mean of that landmark; an image without any annotation is left out.
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
    """Return the error of a baseline that ignores the image and predicts each landmark's mean training position.

    Args:
        train_truth: (N, L, 2).
        test_truth: (Nt, L, 2).
        test_normaliser: (Nt,).
    """
    train_truth = np.asarray(train_truth, dtype=np.float64)
    errors = _percent_errors(
        observed_means(train_truth),
        np.asarray(test_truth, dtype=np.float64),
        np.asarray(test_normaliser, dtype=np.float64),
    )
    return _summarise(errors[None], int(_has_points(train_truth).sum()))


def cumulative_curve(per_landmark: ArrayLike) -> Floats:
    """Return the running mean (L',) of the errors (L,) sorted in ascending order, without NaN (the thesis' CED).

    Entry i is the mean error of the i + 1 best landmarks, so the last entry is the mean over all.
    """
    errors = np.asarray(per_landmark, dtype=np.float64)
    errors = np.sort(errors[np.isfinite(errors)])
    return np.cumsum(errors) / np.arange(1, len(errors) + 1)


def _solve(gram: Floats, cross: Floats, ridge: float) -> Floats:
    """Return the weights (P, Q) of minimum norm, as inputs may be constant or linearly dependent."""
    # X'X is positive semi-definite, so its largest entry is on the diagonal. It is 0 without inputs.
    largest = gram.diagonal().max(initial=0.0)
    gram = gram + ridge * largest * np.eye(len(gram))
    if ridge > _FULL_RANK and largest > 0:
        return np.asarray(np.linalg.solve(gram, cross), dtype=np.float64)
    return np.asarray(np.linalg.lstsq(gram, cross)[0], dtype=np.float64)


def _centred_gram(x: Floats, gram: Floats, rows: Bools) -> tuple[Floats, Floats]:
    """Return the mean (P,) of some rows of x and X'X (P, P) of these rows about it.

    If most rows are selected, the other rows are subtracted from the whole, which costs as much as these rows.

    Args:
        x: (N, P), columns of mean 0.
        gram: (P, P), X'X of all rows.
        rows: (N,), the selected rows.
    """
    if rows.all():
        return np.zeros(x.shape[1]), gram
    if 2 * rows.sum() < len(rows):
        mean = observed_means(x[rows])
        centred = x[rows] - mean
        return mean, np.asarray(centred.T @ centred, np.float64)
    others = x[~rows]
    count = rows.sum()
    mean = -others.sum(axis=0) / count
    return mean, gram - others.T @ others - count * np.outer(mean, mean)


def groups_by_presence(present: Bools) -> Iterator[tuple[Bools, NDArray[np.intp]]]:
    """Yield the rows (N,) and columns of targets that are present in the same rows, from a mask (N, Q).

    Targets that are present in no row are left out.
    """
    if present.all():  # which is usual, and sorting takes longer than a fit
        if present.size:
            yield np.ones(len(present), bool), np.arange(present.shape[1])
        return
    patterns, group_of_column = np.unique(present, axis=1, return_inverse=True)
    for group, pattern in enumerate(patterns.T):
        if pattern.any():
            yield pattern, np.flatnonzero(group_of_column.ravel() == group)


def _has_points(xy: ArrayLike) -> Bools:
    """Return whether each image of (N, L, 2) has any point: (N,)."""
    return np.asarray(np.isfinite(np.asarray(xy)).all(axis=-1).any(axis=-1), np.bool_)


def _draw_rows(eligible: Bools, count: int | None, draws: int, seed: int) -> list[NDArray[np.intp]]:
    """Draw training rows without replacement, `draws` times, or once if all rows are taken."""
    rows = np.flatnonzero(eligible)
    if draws < 1 or (count is not None and count < 1):
        raise ConfigError(
            f"draws={draws}, train_images={count}: both must be at least 1; give train_images=None for all images"
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
    """Fit a regressor on each draw of rows and score it.

    Args:
        train_inputs: (N, A, 2), complete.
        train_targets: (N, B, 2), NaN where missing.
        test_inputs: (Nt, A, 2), complete.
        test_targets: (Nt, B, 2), NaN where missing.
        test_normaliser: (Nt,).
        drawn_rows: Training rows of each draw.
        ridge: Regularisation, see `fit_regressor`.
    """
    test_flat = _flatten(test_inputs)
    errors = np.empty((len(drawn_rows), *test_targets.shape[:2]))
    for draw, rows in enumerate(drawn_rows):
        regressor = fit_regressor(_flatten(train_inputs[rows]), _flatten(train_targets[rows]), ridge)
        predicted = regressor.predict(test_flat).reshape(test_targets.shape)
        errors[draw] = _percent_errors(predicted, test_targets, test_normaliser)
    return _summarise(errors, len(drawn_rows[0]))


def _flatten(xy: Floats) -> Floats:
    """Reshape (N, A, 2) to (N, 2A), also if N or A is 0."""
    return xy.reshape(len(xy), 2 * xy.shape[1])


def _percent_errors(predicted: Floats, truth: Floats, lengths: Floats) -> Floats:
    """Return the distances (Nt, L) of predictions (Nt, L, 2) or (L, 2) to the truth, in percent of the lengths (Nt,)."""
    return np.asarray(100.0 * np.linalg.norm(predicted - truth, axis=-1) / lengths[:, None], np.float64)


def _summarise(errors: Floats, train_images: int) -> NmeResult:
    """Summarise errors (draws, Nt, L), NaN where not scored."""
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
