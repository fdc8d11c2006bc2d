"""Our figures by a protocol, with the thesis' beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation import matching
from ray_kplm.evaluation.annotation import LandmarkSet, Scoring
from ray_kplm.evaluation.buckets import Buckets
from ray_kplm.evaluation.completion import complete_landmarks
from ray_kplm.evaluation.protocols import Protocol
from ray_kplm.evaluation.published import PUBLISHED
from ray_kplm.evaluation.regression import backward_nme, forward_nme
from ray_kplm.evaluation.summary import matched_oks, mean_over, number

Floats = NDArray[np.float64]

_DRAWN = 300
"""Images of the regressors that are not fitted on all (thesis 2.6)."""


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
    """`figures`: name -> number, None where there is none; `published`: method, source, figures of the same names.

    scoring: the protocol's for this dataset; train, test: of `annotation.annotated_set` with it.
    by: the protocol's buckets of the test images.
    Names: forward_nme/all, forward_nme/300, backward_nme/300, forward_nme/|yaw| 0 to 30 (regressors from all images),
    regressed_accuracy/Head, raw_accuracy/Head, pck/Head, .../average, oks/AP. Raises ConfigError for OKS without pycocotools.
    """
    train, test = train.in_image_sides(), test.in_image_sides()
    completed_train, completed_test, _ = complete_landmarks(train.discovered, test.discovered)
    whole = (completed_train, train.truth, completed_test, test.truth)
    figures: dict[str, float] = {}
    everything = forward_nme(*whole, test.normaliser, seed=seed)
    figures["forward_nme/all"] = everything.mean
    options: dict[str, Any] = {"train_images": _DRAWN, "draws": draws, "seed": seed}
    figures[f"forward_nme/{_DRAWN}"] = forward_nme(*whole, test.normaliser, **options).mean
    figures[f"backward_nme/{_DRAWN}"] = backward_nme(
        train.discovered, train.truth, test.discovered, test.truth, test.normaliser, **options
    ).mean
    for buckets in by:
        for bucket in buckets.buckets:
            figures[f"forward_nme/{buckets.column} {bucket.name}"] = mean_over(everything, bucket.images)
    if "regressed_accuracy" in protocol.metrics:
        regressed = forward_nme(*whole, np.ones(len(test.truth)), seed=seed).errors / 100  # image sides
        figures |= _accuracy(protocol, "regressed_accuracy", regressed)
    if "raw_accuracy" in protocol.metrics:
        figures |= _raw_scores(protocol, scoring, train, test)
    published = [vars(row) | {"figures": dict(row.figures)} for row in PUBLISHED[protocol.name]]
    return {
        "name": protocol.name,
        "points": list(protocol.points),
        "split": protocol.split,
        "images": list(protocol.images),
        "visible_only": scoring.visible_only,
        "figures": {name: number(value) for name, value in figures.items()},
        "published": published,
    }


def _accuracy(protocol: Protocol, metric: str, apart: Floats) -> dict[str, float]:
    """apart: (Nt, L), image sides."""
    pixels, side = protocol.within
    return _grouped(protocol, metric, matching.percent_within(apart, pixels / side))


def _grouped(protocol: Protocol, metric: str, per_point: Floats) -> dict[str, float]:
    return {f"{metric}/{name}": value for name, value in matching.by_group(per_point, _indices(protocol)).items()}


def _indices(protocol: Protocol) -> dict[str, list[int]]:
    """Of each group, among the points that are scored."""
    return {name: [protocol.points.index(point) for point in points] for name, points in protocol.groups.items()}


def _raw_scores(protocol: Protocol, scoring: Scoring, train: LandmarkSet, test: LandmarkSet) -> dict[str, float]:
    """Accuracy, PCK and OKS of the landmarks that stand for the points of the groups; in image sides."""
    points = [index for indices in _indices(protocol).values() for index in indices]
    pairing = matching.match_landmarks(train.discovered, _only(train.truth, points))
    found = matching.matched(test.discovered, pairing)
    apart = matching.distances(found, test.truth)
    figures = _accuracy(protocol, "raw_accuracy", apart)
    if "pck" in protocol.metrics:
        assert test.torso is not None, protocol.name
        figures |= _grouped(protocol, "pck", matching.percent_within(apart, protocol.pck_share * test.torso))
    if "oks" in protocol.metrics:
        assert scoring.sigmas is not None, protocol.name
        oks = matched_oks(test, pairing, points, scoring.sigmas)
        figures |= {f"oks/{name}": value for name, value in oks.items() if name != "images"}
    return figures


def _only(truth: Floats, points: list[int]) -> Floats:
    """With all but some points as if they were not annotated: landmarks are matched to these alone."""
    kept = np.full_like(truth, np.nan)
    kept[:, points] = truth[:, points]
    return kept
