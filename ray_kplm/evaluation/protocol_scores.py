"""Scores of a run by a protocol of the field, with the published scores beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation import matching
from ray_kplm.evaluation.annotation import LandmarkSet, Scoring
from ray_kplm.evaluation.buckets import Buckets
from ray_kplm.evaluation.completion import complete_landmarks
from ray_kplm.evaluation.json_numbers import json_number
from ray_kplm.evaluation.protocols import Protocol
from ray_kplm.evaluation.published import PUBLISHED
from ray_kplm.evaluation.regression import backward_nme, forward_nme
from ray_kplm.evaluation.summary import matched_oks, mean_over

Floats = NDArray[np.float64]

_SMALL_TRAINING_SET = 300
"""Number of training images of the regressors that are not fitted on all images (thesis section 2.6)."""


def protocol_scores(
    protocol: Protocol,
    scoring: Scoring,
    train: LandmarkSet,
    test: LandmarkSet,
    *,
    draws: int = 10,
    seed: int = 0,
    by: Sequence[Buckets] = (),
) -> dict[str, Any]:
    """Score landmarks by a protocol and add the scores that the thesis gives for it.

    Args:
        protocol: The protocol.
        scoring: The protocol in indices of this dataset's landmarks (`protocols.resolve`).
        train: Landmarks of the training images, from `annotation.annotated_set` with `scoring`.
        test: Landmarks of the test images, likewise.
        draws: Number of random draws of training images over which errors are averaged.
        seed: Seed of the draws.
        by: The protocol's buckets of the test images.

    Returns:
        A dictionary for JSON. `figures` maps names to numbers, None where a score is undefined: forward_nme/all,
        forward_nme/300, backward_nme/300, forward_nme/|yaw| 0 to 30 (regressors fitted on all images),
        regressed_accuracy/Head, raw_accuracy/Head, pck/Head, .../average, oks/AP. `published` lists method, source and
        figures of the same names.

    Raises:
        ConfigError: The protocol includes OKS and pycocotools is not installed.
    """
    train, test = train.in_image_sides(), test.in_image_sides()
    completed_train, completed_test, _ = complete_landmarks(train.discovered, test.discovered)
    completed = (completed_train, train.truth, completed_test, test.truth)
    options: dict[str, Any] = {"train_images": _SMALL_TRAINING_SET, "draws": draws, "seed": seed}
    on_all = forward_nme(*completed, test.normaliser, seed=seed)
    figures = {
        "forward_nme/all": on_all.mean,
        f"forward_nme/{_SMALL_TRAINING_SET}": forward_nme(*completed, test.normaliser, **options).mean,
        f"backward_nme/{_SMALL_TRAINING_SET}": backward_nme(
            train.discovered, train.truth, test.discovered, test.truth, test.normaliser, **options
        ).mean,
    }
    for buckets in by:
        for bucket in buckets.buckets:
            figures[f"forward_nme/{buckets.column} {bucket.name}"] = mean_over(on_all, bucket.images)
    if "regressed_accuracy" in protocol.metrics:
        distance = forward_nme(*completed, np.ones(len(test.truth)), seed=seed).errors / 100  # image sides
        figures |= _accuracy(protocol, "regressed_accuracy", distance)
    if "raw_accuracy" in protocol.metrics:
        figures |= _raw_scores(protocol, scoring, train, test)
    return {
        "name": protocol.name,
        "points": list(protocol.points),
        "split": protocol.split,
        "images": list(protocol.images),
        "visible_only": scoring.visible_only,
        "figures": {name: json_number(value) for name, value in figures.items()},
        "published": [vars(row) | {"figures": dict(row.figures)} for row in PUBLISHED[protocol.name]],
    }


def _accuracy(protocol: Protocol, metric: str, distance: Floats) -> dict[str, float]:
    """Return the accuracy of each group of points from distances (Nt, L) in image sides."""
    pixels, side = protocol.within
    return _by_group(protocol, metric, matching.percent_within(distance, pixels / side))


def _by_group(protocol: Protocol, metric: str, per_point: Floats) -> dict[str, float]:
    means = matching.by_group(per_point, _group_indices(protocol))
    return {f"{metric}/{name}": value for name, value in means.items()}


def _group_indices(protocol: Protocol) -> dict[str, list[int]]:
    """Return the indices of each group's points among the points that are scored."""
    return {name: [protocol.points.index(point) for point in points] for name, points in protocol.groups.items()}


def _raw_scores(protocol: Protocol, scoring: Scoring, train: LandmarkSet, test: LandmarkSet) -> dict[str, float]:
    """Return accuracy, PCK and OKS of the landmarks matched to the points of the groups; all sets are in image sides."""
    points = [index for indices in _group_indices(protocol).values() for index in indices]
    pairing = matching.match_landmarks(train.discovered, _only(train.truth, points))
    distance = matching.distances(matching.matched(test.discovered, pairing), test.truth)
    figures = _accuracy(protocol, "raw_accuracy", distance)
    if "pck" in protocol.metrics:
        assert test.torso is not None, protocol.name
        figures |= _by_group(protocol, "pck", matching.percent_within(distance, protocol.pck_share * test.torso))
    if "oks" in protocol.metrics:
        assert scoring.sigmas is not None, protocol.name
        oks = matched_oks(test, pairing, points, scoring.sigmas)
        figures |= {f"oks/{name}": value for name, value in oks.items() if name != "images"}
    return figures


def _only(truth: Floats, points: list[int]) -> Floats:
    """Return the annotation (N, L, 2) with NaN for all other points, so that landmarks are matched to these alone."""
    kept = np.full_like(truth, np.nan)
    kept[:, points] = truth[:, points]
    return kept
