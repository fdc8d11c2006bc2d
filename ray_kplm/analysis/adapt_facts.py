"""What is said of a fit: the counts, errors and curve that `adapt.json` and `kplm adapt --json` have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.label_views import LabelledViews
from ray_kplm.evaluation.completion import observed_means
from ray_kplm.labels.labels import Labels
from ray_kplm.methods.visibility import MIN_PROBABILITY
from ray_kplm.points.fit import PointFit, object_sizes
from ray_kplm.points.label_faults import confused_points
from ray_kplm.points.learning_curve import LearningCurve
from ray_kplm.points.point_set import PointSet


def count_facts(labels: Labels, seen: LabelledViews, names: Sequence[str], boxes: bool) -> dict[str, Any]:
    """Return how much was used: objects, images, groups of images that differ, points, and whether by boxes."""
    return {
        "objects": len(seen.rows),
        "images": len({labels.images[row] for row in seen.rows}),
        "groups": int(seen.groups.max()) + 1,
        "points": len(names),
        "boxes": boxes,
    }


def error_facts(fit: PointFit, seen: LabelledViews, points: PointSet) -> dict[str, Any]:
    """Return the recipe, the errors in percent of the object's size, and those of each point."""
    sizes = object_sizes(seen.xy)
    pixels = observed_means(fit.errors * (sizes * seen.pixels)[:, None])
    found = _found(points, seen)
    labelled = np.isfinite(fit.errors)
    names, partners = points.layout.names, points.layout.partners
    return {
        "recipe": str(fit.recipe),
        "error": percent(fit.error),
        "error_pixels": round(float(pixels.mean()), 2),
        "thesis_error": percent(float(observed_means(fit.thesis.errors).mean())),
        "gain": percent(fit.gain),
        "gain_error": percent(fit.gain_error),
        "table": [
            {
                "name": name,
                "labels": int(labelled[:, n].sum()),
                "error": percent(fit.per_point[n]),
                "error_pixels": round(float(pixels[n]), 2),
                "found": None if np.isnan(found[n]) else round(float(found[n]), 3),
                "partner": None if partners[n] == n else names[partners[n]],
            }
            for n, name in enumerate(names)
        ],
        "confused": [[names[a], names[b]] for a, b in confused_points(fit.predicted, seen.targets, sizes)],
        "trials": [{**asdict(trial.recipe), "error": percent(trial.mean)} for trial in fit.trials],
    }


def _found(points: PointSet, seen: LabelledViews) -> NDArray[np.float64]:
    """Return the share of the labelled places of each point (L,) at which it is found; NaN without probabilities."""
    probability = seen.probability @ points.shares.T
    is_found = np.where(np.isnan(probability), np.nan, probability >= MIN_PROBABILITY)
    return observed_means(np.where(np.isfinite(seen.targets).all(axis=-1), is_found, np.nan))


def curve_facts(curve: LearningCurve | None, fit: PointFit, seen: LabelledViews, seed: int) -> dict[str, Any]:
    """Return the errors by number of labels, and what the next ones would gain; all in percent."""
    if curve is None:
        return {"curve": [], "forecast": None}
    rows = zip(curve.counts.tolist(), curve.errors, curve.spreads, strict=True)
    forecast = curve.forecast(fit.error, int(seen.groups.max()) + 1, seed=seed)
    shown = None
    if forecast is not None:
        shares = {name: percent(getattr(forecast, name)) for name in ("now", "then", "low", "high")}
        shown = {"labels": forecast.labels, **shares}
    return {
        "curve": [{"labels": n, "error": percent(error), "spread": percent(spread)} for n, error, spread in rows],
        "forecast": shown,
    }


def percent(share: float) -> float:
    """Return a share in percent, rounded."""
    return round(100 * float(share), 3)
