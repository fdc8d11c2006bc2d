"""Points of a user's own, fitted to labelled images by the landmarks of a run: `kplm adapt`.

<run>/points/<name>/points.json                the set, which `--points <name>` chooses
<run>/points/<name>/adapt.json                 how it was fitted, its errors, and what it was fitted on
<run>/points/<name>/labels.json                the labels, COCO
<run>/points/<name>/adapt.png                  labelled images with labels and cross-validated points
<run>/points/<name>/versions/0001/             the same files of an earlier set of this name
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.adapt_picture import draw_labels
from ray_kplm.analysis.label_doubts import label_doubts
from ray_kplm.analysis.label_views import LabelledViews, image_sizes, see_labels
from ray_kplm.analysis.point_set_list import FACTS, read_facts
from ray_kplm.detectors.stored import detector_fingerprint
from ray_kplm.errors import DataError
from ray_kplm.evaluation.completion import observed_means
from ray_kplm.labels.labels import Labels
from ray_kplm.labels.writing import write_coco
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.locking import lock_folder
from ray_kplm.methods.visibility import MIN_PROBABILITY
from ray_kplm.points.fit import LEAST_IMAGES, PointFit, fit_points, object_sizes
from ray_kplm.points.fitted_set import fitted_set
from ray_kplm.points.label_faults import check_names, check_places, confused_points, enough_labels
from ray_kplm.points.learning_curve import Forecast, LearningCurve, learning_curve
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import LANDMARKS, POINTS_FILE, point_folder, write_point_set
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import Run, versions
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import seal
from ray_kplm.storage.folder import copy_file

LABELS, PICTURE = "labels.json", "adapt.png"
_VERSIONS = "versions"
_BOX_MARGIN = 0.05
"""Share of the error by which boxes must lower it: who predicts must then give boxes too."""
_FIT_VERSION = 1
"""Changes when the same labels would give another set."""


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt.

    Attributes:
        name: Of the set.
        boxes: Whether objects are cropped by the boxes of the labels; None: if the error is lower then. The boxes of many files
            are those of the points, and say nothing about the object.
        margin: Margin around a box, as a share of its longer side.
        device: Where the network runs.
        seed: Of the cross-validation.
    """

    name: str
    boxes: bool | None = None
    margin: float = 0.2
    device: str | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Adapted:
    """A set of points, and what is known of it.

    Attributes:
        points: The set.
        facts: As `adapt.json` has them.
        is_new: False if the set was there already, of the same labels.
    """

    points: PointSet
    facts: dict[str, Any] = field(default_factory=dict)
    is_new: bool = True


def adapt(run: Run, labels: Labels, options: AdaptOptions, progress: ProgressCallback = ignore_progress) -> Adapted:
    """Fit points to labels, and keep them with the run.

    Labels that were fitted before, with the same detector, are not fitted again. An earlier set of the name is kept as a
    version.

    Args:
        run: A finished run.
        labels: Of images, original ones or crops of the run's dataset.
        options: See `AdaptOptions`.
        progress: Called while images are seen and maps are fitted.

    Raises:
        DataError: There are too few labels, points cannot be told apart, or no image can be used.
        RunError: The run is not finished, or another command writes the set.
    """
    check_names(labels.names)
    folder = point_folder(run.folder, options.name)
    fingerprint = _fingerprint(run, labels, options)
    earlier = read_facts(folder)
    if earlier and earlier["fingerprint"] == fingerprint:
        return Adapted(PointSet.from_dict(folder.read_object(POINTS_FILE)), earlier, is_new=False)
    if len(labels) < LEAST_IMAGES:
        raise DataError(f"{len(labels)} labelled images: {LEAST_IMAGES} are needed at least, and 20 are a good start")
    detector = LandmarkDetector.load(str(run.folder), device=options.device, points=LANDMARKS)
    ways = _ways(labels, options)
    tried = [
        _fitted(detector, labels, boxes, options, part_of(progress, 0.8 * n / len(ways), 0.8 * (n + 1) / len(ways)))
        for n, boxes in enumerate(ways)
    ]
    seen, fit, enough, left_out, boxes = min(tried, key=lambda one: one.pixels * (1 + _BOX_MARGIN * one.boxes))
    names = [name for name, kept in zip(labels.names, enough, strict=True) if kept]
    progress(0.8, "errors with fewer labels")
    curve = learning_curve(seen.xy, seen.targets, groups=seen.groups.tolist(), seed=options.seed)
    points = fitted_set(
        fit.regressor, seen.xy, seen.targets, names, detector.layout.partners, _edges(labels.skeleton, enough)
    )
    facts = {
        "name": options.name,
        "fingerprint": fingerprint,
        **_counts(labels, seen, names, boxes),
        **_errors(fit, seen, points),
        **_curve(curve, fit, seen, options.seed),
        "rejected": [list(one) for one in (*labels.rejected, *seen.rejected)],
        "left_out": left_out,
        "notes": [*labels.notes, *label_doubts(fit, seen, labels, names)],
        "versions": versions(),
    }
    sizes = image_sizes(labels)
    facts["version"] = _write(
        folder, points, facts, _used(labels, seen, enough, names), sizes, _picture(fit, seen, points, options)
    )
    progress(1.0, f"{folder}: {len(names)} points")
    return Adapted(points, facts)


class _Tried(NamedTuple):
    """A fit to labels that were seen with or without boxes."""

    seen: LabelledViews
    fit: PointFit
    enough: NDArray[np.bool_]
    left_out: list[str]
    boxes: bool

    @property
    def pixels(self) -> float:
        """The mean error in source pixels, which does not depend on how the images are cropped."""
        errors = self.fit.errors * (object_sizes(self.seen.xy) * self.seen.pixels)[:, None]
        return float(observed_means(errors.ravel()))


def _ways(labels: Labels, options: AdaptOptions) -> list[bool]:
    """Return whether boxes are used: both, if that is to be found out."""
    if options.boxes is not None:
        return [options.boxes]
    return [False, True] if np.isfinite(labels.boxes).all(axis=1).any() else [False]


def _fitted(
    detector: LandmarkDetector, labels: Labels, boxes: bool, options: AdaptOptions, progress: ProgressCallback
) -> _Tried:
    """See the labels, check them, and fit the points that have enough of them."""
    seen = see_labels(detector, labels, boxes=boxes, margin=options.margin, progress=part_of(progress, 0.0, 0.8))
    enough, left_out = enough_labels(seen.targets, seen.groups, labels.names)
    names = [name for name, kept in zip(labels.names, enough, strict=True) if kept]
    seen = replace(seen, targets=seen.targets[:, enough])
    check_places(seen.targets, object_sizes(seen.xy), names)
    way = " cropped by their boxes" if boxes else ""
    progress(0.8, f"fitting {len(names)} points to {len(seen.rows)} labelled objects{way}")
    return _Tried(
        seen, fit_points(seen.xy, seen.targets, groups=seen.groups.tolist(), seed=options.seed), enough, left_out, boxes
    )


def _fingerprint(run: Run, labels: Labels, options: AdaptOptions) -> str:
    """Return what tells labels, detector and options from others."""
    detector = detector_fingerprint(run, LANDMARKS)
    plain = [labels.names, labels.images, labels.skeleton, detector, options.boxes, options.margin, options.seed]
    digest = hashlib.sha256(json.dumps([*plain, _FIT_VERSION]).encode())
    for array in (labels.xy, labels.visible, np.zeros(0) if options.boxes is False else labels.boxes):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _edges(skeleton: Sequence[tuple[int, int]], kept: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Return the edges between points that are kept, by their numbers among these."""
    number = np.cumsum(kept) - 1
    return tuple((int(number[a]), int(number[b])) for a, b in skeleton if kept[a] and kept[b])


def _counts(labels: Labels, seen: LabelledViews, names: Sequence[str], boxes: bool) -> dict[str, Any]:
    return {
        "objects": len(seen.rows),
        "images": len({labels.images[row] for row in seen.rows}),
        "groups": int(seen.groups.max()) + 1,
        "points": len(names),
        "boxes": boxes,
    }


def _errors(fit: PointFit, seen: LabelledViews, points: PointSet) -> dict[str, Any]:
    """Return the recipe, the errors in percent of the object's size, and those of each point."""
    sizes = object_sizes(seen.xy)
    pixels = observed_means(fit.errors * (sizes * seen.pixels)[:, None])
    found = _found(points, seen)
    labelled = np.isfinite(fit.errors)
    names, partners = points.layout.names, points.layout.partners
    return {
        "recipe": str(fit.recipe),
        "error": _percent(fit.error),
        "error_pixels": round(float(pixels.mean()), 2),
        "thesis_error": _percent(float(observed_means(fit.thesis.errors).mean())),
        "gain": _percent(fit.gain),
        "gain_error": _percent(fit.gain_error),
        "table": [
            {
                "name": name,
                "labels": int(labelled[:, n].sum()),
                "error": _percent(fit.per_point[n]),
                "error_pixels": round(float(pixels[n]), 2),
                "found": None if np.isnan(found[n]) else round(float(found[n]), 3),
                "partner": None if partners[n] == n else names[partners[n]],
            }
            for n, name in enumerate(names)
        ],
        "confused": [[names[a], names[b]] for a, b in confused_points(fit.predicted, seen.targets, sizes)],
        "trials": [{**asdict(trial.recipe), "error": _percent(trial.mean)} for trial in fit.trials],
    }


def _found(points: PointSet, seen: LabelledViews) -> NDArray[np.float64]:
    """Return the share of the labelled places of each point (L,) at which it is found; NaN without probabilities."""
    probability = seen.probability @ points.shares.T
    is_found = np.where(np.isnan(probability), np.nan, probability >= MIN_PROBABILITY)
    return observed_means(np.where(np.isfinite(seen.targets).all(axis=-1), is_found, np.nan))


def _curve(curve: LearningCurve | None, fit: PointFit, seen: LabelledViews, seed: int) -> dict[str, Any]:
    if curve is None:
        return {"curve": [], "forecast": None}
    rows = zip(curve.counts.tolist(), curve.errors, curve.spreads, strict=True)
    forecast: Forecast | None = curve.forecast(fit.error, int(seen.groups.max()) + 1, seed=seed)
    shown = None
    if forecast is not None:
        shares = {name: _percent(getattr(forecast, name)) for name in ("now", "then", "low", "high")}
        shown = {"labels": forecast.labels, **shares}
    return {
        "curve": [{"labels": n, "error": _percent(error), "spread": _percent(spread)} for n, error, spread in rows],
        "forecast": shown,
    }


def _percent(share: float) -> float:
    return round(100 * float(share), 3)


def _used(labels: Labels, seen: LabelledViews, kept: NDArray[np.bool_], names: Sequence[str]) -> Labels:
    """Return the labels that were used."""
    rows = seen.rows
    return replace(
        labels, names=tuple(names), images=tuple(labels.images[row] for row in rows), xy=labels.xy[rows][:, kept],
        visible=labels.visible[rows][:, kept], boxes=labels.boxes[rows], skeleton=_edges(labels.skeleton, kept),
    )  # fmt: skip


def _picture(fit: PointFit, seen: LabelledViews, points: PointSet, options: AdaptOptions) -> bytes:
    title = (
        f"{options.name}: rings are labels, discs are predicted without them; {_percent(fit.error):.1f} % of the object"
    )
    count = len(seen.views)
    return draw_labels(seen.views, seen.targets[:count], fit.predicted[:count], points.layout, title)


def _write(
    folder: Folder,
    points: PointSet,
    facts: dict[str, Any],
    used: Labels,
    sizes: dict[str, tuple[int, int]],
    picture: bytes,
) -> int:
    """Write the set, its points last; an earlier one becomes a version. Return the number of the new one."""
    with lock_folder(folder) as lock:
        target, number = lock.folder, 1
        kept = target / _VERSIONS
        if target.is_file(POINTS_FILE):
            number = max((int(name) for name in kept.folders() if name.isdecimal()), default=0) + 1
            for name in (LABELS, PICTURE, FACTS, POINTS_FILE):
                if target.is_file(name):
                    copy_file(target, kept / f"{number:04d}", name)
            number += 1
        write_coco(used, sizes, target, LABELS)
        target.write_bytes(PICTURE, picture)
        target.write_json(FACTS, seal({**facts, "version": number}))
        write_point_set(target, points, version=number)
    return number
