"""What `kplm drift` found, as text, and as figures for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray_kplm.report.charts import format_number
from ray_kplm.report.text_table import align
from ray_kplm.screening.drift import Change, Drift, Unusual
from ray_kplm.screening.drift_statistics import Statistic
from ray_kplm.screening.two_sample import ALARM

_CONSTANT = 100
"""A statistic that is so many standard deviations off had the same value in the training images, but for rounding."""
_SHOWN_OTHERS = 3
"""Statistics that are shown where none has changed significantly: those that differ most."""


@dataclass(frozen=True)
class Began:
    """When the drift began.

    Attributes:
        kind: What says when an image was made.
        label: The time of the first image after the change; None: all images are alike.
        image: Name of this image; None likewise.
        before: Number of images before it.
        after: Number of images from there on.
        levels: Mean deviation from the training before and after, in standard deviations.
        p: Probability of so clear a change by chance.
    """

    kind: str
    label: str | None
    image: str | None
    before: int
    after: int
    levels: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Compared:
    """The names and numbers that are told of a comparison.

    Attributes:
        run: Name of the run.
        source: Name of the new images.
        drift: The comparison.
        ids: Names of the new images that were looked at.
        reference: Number of training images that were measured.
        total: Number of new images that there are.
        rejected: Number of images that could not be used, by kind of reason.
        example: Name and reason of one of these.
        began: When the drift began; None if it is not known.
        notes: What the user is told, a line each.
    """

    run: str
    source: str
    drift: Drift
    ids: Sequence[str]
    reference: int
    total: int
    rejected: dict[str, int]
    example: tuple[str, str] | None
    began: Began | None
    notes: Sequence[str]


def verdict(found: Compared) -> str:
    """Return one sentence: whether the images are like those of the training, and whether the detector works on them."""
    drift, count = found.drift, len(found.ids)
    images = f"{count} image{'' if count == 1 else 's'}"
    if drift.p is None:
        unusual = int((drift.share <= ALARM).sum())
        return (
            f"{images}: {unusual} of them unlike 95 % of the training images; too few to say whether there is a trend"
        )
    if not drift.is_drift:
        return f"no drift: {images} are like the training images (p = {drift.p:.3f})"
    chance = f"p = {drift.p:.3f}"
    if drift.is_detector_affected:
        return f"drift: {images} are not like the training images, and the detector works less well on them ({chance})"
    return f"drift: {images} are not like the training images, but the detector works on them as in training ({chance})"


def drift_lines(found: Compared, worst: int) -> Iterator[str]:
    """Yield the lines of the text, with as many of the most unusual images as `worst` says."""
    drift = found.drift
    yield f"{found.run} on {found.source}: {verdict(found)}"
    changes = drift.significant or drift.changes[:_SHOWN_OTHERS]
    if changes:
        yield ""
        yield "what has changed:" if drift.is_drift else "the largest differences, all of a size that chance makes:"
        rows = [["", "training", "", "new", "", "change"]]
        rows += [[c.statistic.title, *_arrow(c), c.statistic.unit, change_text(c)] for c in changes]
        yield from align(rows, left=(0, 4, 5))
    if found.began is not None:
        yield ""
        yield began_text(found.began)
    unusual = drift.worst(worst)
    if unusual:
        yield ""
        yield "the most unusual images, with the share of training images that are as unusual:"
        yield from align([[found.ids[u.row], f"{100 * u.share:.1f} %", reasons_text(u)] for u in unusual], left=(0, 2))
    if found.rejected:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.rejected.items())
        example = ", e.g. {}: {}".format(*found.example) if found.example else ""
        yield ""
        lost = sum(found.rejected.values())
        yield f"{lost} image{'s' if lost > 1 else ''} could not be used ({kinds}){example}"
    if found.notes:
        yield ""
        yield from found.notes


def value_text(statistic: Statistic, value: float) -> str:
    """Return a value of a statistic in its unit, without the unit."""
    return format_number(math.exp(value) if statistic.is_log else value)


def _arrow(change: Change) -> list[str]:
    return [value_text(change.statistic, change.before), "->", value_text(change.statistic, change.after)]


def change_text(change: Change) -> str:
    """Return by how much a statistic has changed, in standard deviations of the training images."""
    if change.varies_more and change.size_of_shift <= 1:
        return "varies more"
    if abs(change.shift) >= _CONSTANT:
        return "the same in all training images"
    shift = f"{abs(change.shift):.1f} sd {'higher' if change.shift > 0 else 'lower'}"
    return f"{shift}, varies more" if change.varies_more else shift


def reasons_text(unusual: Unusual) -> str:
    """Return why an image is unusual."""
    return ", ".join(f"{one.title} {'high' if score > 0 else 'low'}" for one, score in unusual.reasons)


def began_text(began: Began) -> str:
    """Return since when images differ, in a line."""
    if began.label is None:
        return f"since when ({began.kind}): from the first image on, there is no clear beginning (p = {began.p:.2f})"
    return (
        f"since when ({began.kind}): {began.label}, {began.image}; {began.before} images before are "
        f"{began.levels[0]:.1f} sd off the training, {began.after} from there on {began.levels[1]:.1f} sd (p = {began.p:.3f})"
    )


def drift_figures(found: Compared, worst: int) -> dict[str, Any]:
    """Return the figures for JSON: numbers that are not known are None."""
    drift, began = found.drift, found.began
    return {
        "run": found.run,
        "source": found.source,
        "verdict": "unknown" if drift.p is None else "drift" if drift.is_drift else "no drift",
        "text": verdict(found),
        "p": drift.p,
        "detector_affected": None if drift.p is None else drift.is_detector_affected,
        "images": len(found.ids),
        "total": found.total,
        "training_images": found.reference,
        "rejected": found.rejected,
        "grouping": drift.grouping,
        "changes": [
            {
                "name": c.statistic.name,
                "family": c.statistic.family,
                "training": _shown(c.statistic, c.before),
                "new": _shown(c.statistic, c.after),
                "sd": c.shift if abs(c.shift) < _CONSTANT else None,
                "size": _finite(c.size),
                "varies_more": c.varies_more,
                "significant": drift.is_drift and c.is_significant,
            }
            for c in drift.changes
        ],
        "since": began
        and {
            "by": began.kind,
            "time": began.label,
            "image": began.image,
            "before": began.before,
            "after": began.after,
            "p": began.p,
        },
        "worst": [
            {
                "image": found.ids[u.row],
                "score": u.score,
                "share": u.share,
                "reasons": {one.name: score for one, score in u.reasons},
            }
            for u in drift.worst(worst)
        ],
        "notes": list(found.notes),
    }


def _shown(statistic: Statistic, value: float) -> float | None:
    return _finite(math.exp(value) if statistic.is_log else value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
