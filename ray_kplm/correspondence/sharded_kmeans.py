"""K-means on the shards of a round: progress, the sample that starts are tried on, and the fit (docs/method.md 3)."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import ClusteringConfig, Config
from ray_kplm.correspondence import kmeans
from ray_kplm.correspondence.shard_results import Trial
from ray_kplm.errors import CollapseError
from ray_kplm.progress import ProgressCallback


class Shards(Protocol):
    """All shards of a round, in this process or on other machines."""

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of `shard.DescriptorShard` on all shards in parallel and return the results in the shards' order."""
        ...


def fit_progress(progress: ProgressCallback, name: str, options: ClusteringConfig) -> kmeans.IterationCallback:
    """Return the callback that reports the iterations of `fit` as progress.

    Iteration 0 is the choice of the start by trials on the sample, which counts as half of the work.
    """

    def on_iteration(iteration: int, objective: float) -> None:
        share = (1 + iteration / options.iterations) / 2
        done = f"iteration {iteration}" if iteration else f"best of {options.n_init} starts"
        progress(share, f"clustering to {name}: {done}, objective {objective:.6g}")

    return on_iteration


def fit(
    shards: Shards,
    k: int,
    config: Config,
    seed: tuple[int, ...],
    on_iteration: kmeans.IterationCallback,
    previous: NDArray[np.float32] | None = None,
    *,
    mirrored: bool = True,
) -> kmeans.Clustering:
    """Fit K-means to the descriptors of all kept keypoints, or to a seeded share (`clustering.fit_points`).

    Args:
        shards: The shards of the round.
        k: Number of clusters.
        config: The run's configuration.
        seed: Seed of the starts.
        on_iteration: Called after each iteration, see `fit_progress`.
        previous: Initial centroids (k, d). Default: the best of several k-means++ starts.
        mirrored: Whether the descriptors of the mirror images are fitted too.

    Raises:
        CollapseError: There are fewer descriptors than clusters.
    """
    options = config.clustering
    points = _ShardedPoints(shards, options.fit_points, mirrored)
    if points.totals().points < k:
        raise CollapseError(
            f"{points.totals().points} descriptors for {k} clusters: need at least as many; look at "
            f"detection.points_per_landmark and stage1.warmup_iterations, or lower method.clusters"
        )
    if previous is None:
        previous = _best_start(shards, points.totals().points, k, options, seed, on_iteration)
    return kmeans.fit(
        points,
        [previous],
        iterations=options.iterations,
        tolerance=options.tolerance,
        spherical=options.spherical,
        on_iteration=on_iteration,
    )


class _ShardedPoints:
    """`kmeans.Points` on shards."""

    def __init__(self, shards: Shards, fit_points: int, mirrored: bool) -> None:
        """Begin a fit on the shards.

        Args:
            shards: The shards of the round.
            fit_points: Number of descriptors to fit, drawn by seed; 0: all.
            mirrored: Whether the descriptors of the mirror images are fitted too.
        """
        self._shards = shards
        self._totals: kmeans.PointTotals = reduce(add, shards.ask("begin_fit", 1.0, mirrored))
        if fit_points and fit_points < self._totals.points:
            self._totals = reduce(add, shards.ask("begin_fit", fit_points / self._totals.points, mirrored))

    def totals(self) -> kmeans.PointTotals:
        """Return the totals of all points."""
        return self._totals

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        """Return the contribution of all points to an iteration with these centroids."""
        total: kmeans.Partial = reduce(add, self._shards.ask("partial", centroids))
        return total


def _best_start(
    shards: Shards,
    points: int,
    k: int,
    options: ClusteringConfig,
    seed: tuple[int, ...],
    on_iteration: kmeans.IterationCallback,
) -> NDArray[np.float32]:
    """Return the centroids (k, d) of the best of `clustering.n_init` fits to a seeded, bounded sample.

    Each fit has its own k-means++ start. The result depends mostly on the start, and a sample suffices to tell good
    starts from bad ones.
    """
    share = min(1.0, max(options.start_sample, k) / points)
    sampled = shards.ask("sample", share)
    pieces = sorted((piece for pieces in sampled for piece in pieces), key=lambda piece: piece[0])
    sample = np.concatenate([descriptors for _, descriptors in pieces])
    if len(sample) < k:  # a random share of few points may be smaller than its expectation
        larger = replace(options, start_sample=2 * max(options.start_sample, k))
        return _best_start(shards, points, k, larger, seed, on_iteration)
    owners = [pieces[0][0] for pieces in sampled if pieces]
    turns = {owner: list(range(options.n_init))[number :: len(owners)] for number, owner in enumerate(owners)}
    trials: list[Trial] = reduce(add, shards.ask("try_starts", sample, k, seed, turns, options))
    best = min(trials, key=lambda trial: (trial.objective, trial.start))
    on_iteration(0, best.objective)
    return best.centroids
