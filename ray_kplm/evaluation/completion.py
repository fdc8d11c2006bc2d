"""Stands in for landmarks that were not detected, so that a regressor can read every image (thesis 6.2.2).

Training rows are completed by Singular Value Thresholding (Cai, Candes & Shen, "A singular value thresholding
algorithm for matrix completion", SIAM J. Optimization 20(4), 2010), test rows by the training mean.
NaN marks what is missing. N images, K landmarks, P = 2K coordinates.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def singular_value_threshold(
    matrix: ArrayLike, *, threshold: float = 2.0, tolerance: float = 1e-4, max_iterations: int = 400
) -> Floats:
    """(N, P) with NaN -> (N, P) without; observed entries come back as they were. Meant for N >= P.

    threshold: tau in units of sqrt(N * P) times the root mean square of the observed entries about their
        column means. Cai et al. take 5, for entries of unit variance. With 35 % of 10 noisy face points
        missing, 2 has an error 4 % above that of 5 after 0.4 of the iterations; 1 is 12 % above.
    tolerance: stop once the observed entries are reproduced to this share of their norm; their value.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    observed = np.isfinite(matrix)
    if not observed.any(axis=0).all():
        column = int(np.argmin(observed.any(axis=0)))
        raise ValueError(
            f"column {column}: has no observed entry, and completion needs one in each; drop the column first"
        )
    if observed.all():
        return matrix
    means = observed_means(matrix)
    centred = np.where(observed, matrix - means, 0.0)
    low_rank = _threshold_iterations(centred, observed, threshold, tolerance, max_iterations)
    return np.where(observed, matrix, low_rank + means)


def complete_landmarks(train_xy: ArrayLike, test_xy: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Fills in both parts: (train (N, K', 2), test (Nt, K', 2), kept (K,)).

    train_xy, test_xy: (N, K, 2) and (Nt, K, 2), NaN where a landmark was not detected.
    kept: False for landmarks that no training image shows; nothing can stand in for them, so they are dropped
        from both parts, K' = kept.sum().
    """
    train_xy, kept = drop_unobserved(train_xy)
    test_xy = np.asarray(test_xy, dtype=np.float64)[:, kept]
    flat = train_xy.reshape(len(train_xy), 2 * train_xy.shape[1])
    completed = singular_value_threshold(flat).reshape(train_xy.shape)
    return completed, fill_with(test_xy, observed_means(train_xy)), kept


def drop_unobserved(xy: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """(N, K, 2) -> (N, K', 2) with the landmarks that at least one image shows, and which these are."""
    xy = np.asarray(xy, dtype=np.float64)
    kept = np.isfinite(xy).all(axis=-1).any(axis=0)
    return xy[:, kept], kept


def fill_with(values: Floats, means: Floats) -> Floats:
    """NaN entries of (N, ...) replaced by those of (...)."""
    return np.where(np.isfinite(values), values, means)


def observed_means(values: Floats) -> Floats:
    """(N, ...) -> (...): the mean over the images that have the entry, NaN where none has.

    Taken about one observed value of each column, so that a column of equal values has exactly that mean.
    """
    observed = np.isfinite(values)
    counts = observed.sum(axis=0)
    start = np.where(counts > 0, np.max(values, axis=0, where=observed, initial=-np.inf), np.nan)
    offsets = np.where(observed, values - start, 0.0).sum(axis=0)
    return start + offsets / np.maximum(counts, 1)


def _threshold_iterations(
    centred: Floats, observed: NDArray[np.bool_], threshold: float, tolerance: float, max_iterations: int
) -> Floats:
    """The low-rank matrix (N, P) that agrees on the observed entries with `centred`, zero elsewhere."""
    norm = np.linalg.norm(centred)
    if norm == 0:
        return np.zeros_like(centred)
    share = observed.mean()
    tau = threshold * norm / np.sqrt(share)  # norm / sqrt(share) = root mean square * sqrt(N * P)
    # 1.2 / share is theirs; their proof of convergence asks for less than 2, and landmarks are not missing at
    # random.
    step = min(1.2 / share, 1.9)
    # The first iterations only add `step * centred`, as no singular value exceeds tau yet; skipped.
    skipped = max(1.0, np.ceil(tau / (step * np.linalg.norm(centred, ord=2))))
    dual = skipped * step * centred
    low_rank = np.zeros_like(centred)
    for _ in range(max_iterations):
        low_rank = _shrink(dual, tau)
        residual = np.where(observed, centred - low_rank, 0.0)
        if np.linalg.norm(residual) <= tolerance * norm:
            break
        dual += step * residual
    return low_rank


def _shrink(matrix: Floats, tau: float) -> Floats:
    """D_tau: every singular value less tau, none below zero. By the (P, P) Gram matrix: P is far below N."""
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    values = np.sqrt(np.maximum(squares, 0.0))
    factors = np.maximum(1.0 - tau / np.maximum(values, tau), 0.0)
    return matrix @ ((vectors * factors) @ vectors.T)
