"""Completion of landmarks that were not detected, so that a regressor can use every image (thesis section 6.2.2).

Training images are completed by Singular Value Thresholding (Cai, Candes & Shen, "A singular value thresholding algorithm
for matrix completion", SIAM J. Optimization 20(4), 2010), test images by the training mean. NaN marks missing values.
N images, K landmarks, P = 2K coordinates.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def singular_value_threshold(
    matrix: ArrayLike, *, threshold: float = 2.0, tolerance: float = 1e-4, max_iterations: int = 400
) -> Floats:
    """Fill the missing entries of a matrix by a low-rank approximation; observed entries are unchanged.

    Args:
        matrix: (N, P), NaN where missing, with at least one observed entry in each column; N >= P for efficiency.
        threshold: tau in units of sqrt(N * P) times the root mean square of the observed entries about their column means.
            Cai et al. take 5, for entries of unit variance. With 35 % of 10 noisy face points missing, 2 has an error 4 %
            above that of 5 after 0.4 of the iterations; 1 is 12 % above.
        tolerance: Stop when the observed entries are reproduced to this share of their norm; the value of Cai et al.
        max_iterations: Stop at the latest after this number of iterations.

    Returns:
        (N, P) without NaN.

    Raises:
        ValueError: A column has no observed entry.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    observed = np.isfinite(matrix)
    if not observed.any(axis=0).all():
        column = int(np.argmin(observed.any(axis=0)))
        raise ValueError(
            f"column {column}: has no observed entry, but completion needs at least one in each column; drop the column first"
        )
    if observed.all():
        return matrix
    means = observed_means(matrix)
    centred = np.where(observed, matrix - means, 0.0)
    low_rank = _threshold_iterations(centred, observed, threshold, tolerance, max_iterations)
    return np.where(observed, matrix, low_rank + means)


def complete_landmarks(train_xy: ArrayLike, test_xy: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Fill in the landmarks that were not detected, of training and test images.

    Landmarks that no training image shows cannot be completed and are dropped from both.

    Args:
        train_xy: (N, K, 2), NaN where not detected.
        test_xy: (Nt, K, 2), likewise.

    Returns:
        The completed training landmarks (N, K', 2) and test landmarks (Nt, K', 2), and which of the K landmarks these are:
        (K,).
    """
    train_xy, kept = drop_unobserved(train_xy)
    test_xy = np.asarray(test_xy, dtype=np.float64)[:, kept]
    flat = train_xy.reshape(len(train_xy), 2 * train_xy.shape[1])
    completed = singular_value_threshold(flat).reshape(train_xy.shape)
    return completed, fill_with(test_xy, observed_means(train_xy)), kept


def drop_unobserved(xy: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the landmarks (N, K', 2) that at least one image shows, and which of the K these are: (K,)."""
    xy = np.asarray(xy, dtype=np.float64)
    kept = np.isfinite(xy).all(axis=-1).any(axis=0)
    return xy[:, kept], kept


def fill_with(values: Floats, means: Floats) -> Floats:
    """Replace the NaN entries of values (N, ...) by the means (...)."""
    return np.where(np.isfinite(values), values, means)


def observed_means(values: Floats) -> Floats:
    """Return the mean (...) of values (N, ...) over the images that have the entry, NaN where none has.

    It is computed relative to one observed value of each column, so that a column of equal values has exactly that mean.
    """
    observed = np.isfinite(values)
    counts = observed.sum(axis=0)
    start = np.where(counts > 0, np.max(values, axis=0, where=observed, initial=-np.inf), np.nan)
    offsets = np.where(observed, values - start, 0.0).sum(axis=0)
    return np.asarray(start + offsets / np.maximum(counts, 1), np.float64)


def _threshold_iterations(
    centred: Floats, observed: NDArray[np.bool_], threshold: float, tolerance: float, max_iterations: int
) -> Floats:
    """Return the low-rank matrix (N, P) that agrees with `centred` on the observed entries; `centred` is 0 elsewhere."""
    norm = np.linalg.norm(centred)
    if norm == 0:
        return np.zeros_like(centred)
    share = observed.mean()
    tau = threshold * norm / np.sqrt(share)  # norm / sqrt(share) = root mean square * sqrt(N * P)
    # Cai et al. take 1.2 / share. Their proof of convergence requires less than 2, and landmarks are not missing at random.
    step = min(1.2 / share, 1.9)
    # Skip the first iterations, which only add `step * centred`, as no singular value exceeds tau yet.
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
    """Reduce every singular value by tau, to no less than 0 (the operator D_tau of Cai et al.).

    The decomposition is that of the (P, P) Gram matrix, as P is far below N.
    """
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    values = np.sqrt(np.maximum(squares, 0.0))
    factors = np.maximum(1.0 - tau / np.maximum(values, tau), 0.0)
    return np.asarray(matrix @ ((vectors * factors) @ vectors.T), np.float64)
