"""Content of the gallery and of the landmark cards: pictures cut from the images, and the measures beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.evaluation.label_free_warnings import RARE
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.methods.visibility import found_of
from ray_kplm.points.point_set import PointSet
from ray_kplm.report import pictures
from ray_kplm.report.charts import format_number
from ray_kplm.report.edited_points import edge_path, edited_landmarks

PATCHES, PATCH_COLUMNS = 12, 6
"""Number of patches on a landmark's card, and of these in a row."""
PATCH_SIDE = 56
"""Side of a patch, pixels."""
_PATCH_REACH = 0.13
"""Half of the side of the image region that a patch shows, as a share of the image's longer side."""
_MEAN_SIDE = 96
"""Side of the mean image, pixels."""
NO_NUMBER = "\N{EN DASH}"
"""Shown in place of a number that is undefined."""
HOLLOW_BELOW = 0.25
"""Without probabilities, a landmark is drawn hollow where its confidence is below this share of its median confidence."""
EXTREMES = 12
"""Number of the best images, and of the worst, with which a gallery begins."""


@dataclass(frozen=True)
class Findings:
    """K landmarks in the N images of a split.

    Attributes:
        ids: Names of the images.
        sizes: (N, 2), width and height, pixels.
        xy: (N, K, 2), pixels of the image, NaN where not detected.
        confidence: (N, K).
        errors: (N,), forward NME of each image in percent, NaN where undefined; None without annotation.
        probability: (N, K), of being there, NaN where there is none; None if the detector gives none.
    """

    ids: Sequence[str]
    sizes: NDArray[np.integer]
    xy: NDArray[np.floating]
    confidence: NDArray[np.floating]
    errors: NDArray[np.float64] | None = None
    probability: NDArray[np.floating] | None = None

    @property
    def landmarks(self) -> int:
        """Number of landmarks, K."""
        return int(self.xy.shape[1])

    def relative_confidence(self) -> NDArray[np.float64]:
        """Return confidences (N, K) relative to the landmark's median; 0 where it was not detected."""
        median = np.median(self.confidence, axis=0)
        relative = self.confidence / np.maximum(median, 1e-9)
        return np.asarray(np.where(np.isfinite(self.xy).all(axis=2), relative, 0.0))

    def hollow(self) -> NDArray[np.bool_]:
        """Return which landmarks are drawn hollow, (N, K): those not found; without probabilities, those of low confidence."""
        doubtful = self.relative_confidence() < HOLLOW_BELOW
        if self.probability is None:
            return np.asarray(doubtful)
        return np.where(np.isnan(self.probability), doubtful, ~found_of(self.xy, self.probability))

    def found_rate(self) -> list[float] | None:
        """Return the share of the images in which each landmark is found, (K,); None without probabilities."""
        if self.probability is None or np.isnan(self.probability).all():
            return None
        rates: list[float] = found_of(self.xy, self.probability).mean(axis=0).tolist()
        return rates

    def mean_probability(self) -> list[float] | None:
        """Return the mean probability of each landmark, (K,); None without probabilities."""
        if self.probability is None or np.isnan(self.probability).all():
            return None
        known = np.isfinite(self.probability)
        total = np.where(known, self.probability, 0).sum(axis=0)
        means: list[float] = (total / np.maximum(known.sum(axis=0), 1)).tolist()
        return means

    def difficulty(self) -> NDArray[np.float64]:
        """Return a key (N,) that orders the images from the best to the worst.

        It is the error of an image, if defined. Images without an error come after those with one, ordered by the mean of
        their relative confidences.
        """
        doubt = 1 - self.relative_confidence().clip(0, 1).mean(axis=1)
        if self.errors is None:
            return np.asarray(doubt)
        return np.where(np.isfinite(self.errors), self.errors, np.nanmax(self.errors, initial=0.0) + doubt)


def choose(difficulty: NDArray[np.floating], count: int, seed: int) -> NDArray[np.int64]:
    """Return ascending indices of images for a gallery: the best, the worst and a seeded sample of the others."""
    order = np.argsort(difficulty, kind="stable")
    if count >= len(order):
        return np.sort(order)
    ends = min(EXTREMES, count // 2)
    middle = order[ends : len(order) - ends]
    between = np.random.default_rng(seed).choice(middle, count - 2 * ends, replace=False)
    return np.sort(np.concatenate([order[:ends], between, order[len(order) - ends :]]))


@dataclass(frozen=True)
class Album:
    """Pictures of the images chosen for the gallery.

    Attributes:
        chosen: (M,), indices of the images among the findings, ascending.
        thumbnails: One for each chosen image.
        montages: Patches around each landmark; None for one that was detected in none of the chosen images.
        mean: URI of the mean of the chosen images.
    """

    chosen: NDArray[np.int64]
    thumbnails: list[pictures.Thumbnail]
    montages: list[pictures.Thumbnail | None]
    mean: str


def make_album(findings: Findings, chosen: NDArray[np.int64], images: Iterable[NDArray[np.uint8]]) -> Album:
    """Make the pictures in one pass over the images.

    Args:
        findings: Landmarks of all images.
        chosen: (M,), indices of the images for the gallery, ascending.
        images: The chosen images, uint8 (H, W, 3), in this order.
    """
    side = thumbnail_side(len(chosen))
    shown_in = _patch_images(findings, chosen)
    patches: dict[tuple[int, int], NDArray[np.uint8]] = {}
    thumbnails = []
    total = np.zeros((_MEAN_SIDE, _MEAN_SIDE, 3))
    for index, image in zip(chosen.tolist(), images, strict=True):
        thumbnails.append(pictures.thumbnail(image, side))
        total += letterbox(image, _MEAN_SIDE)[0]
        reach = _PATCH_REACH * max(image.shape[:2])
        for landmark, indices in enumerate(shown_in):
            if index in indices:
                patches[landmark, index] = pictures.patch(image, findings.xy[index, landmark], reach, PATCH_SIDE)
    montages = []
    for landmark, indices in enumerate(shown_in):
        of_landmark = [patches[landmark, index] for index in indices]
        montages.append(pictures.montage(of_landmark, PATCH_COLUMNS) if of_landmark else None)
    return Album(chosen, thumbnails, montages, pictures.mean_picture(total / max(len(chosen), 1)))


def thumbnail_side(images: int) -> int:
    """Return the longer side of a gallery's pictures in pixels; more images get smaller ones, to keep a page below 30 MB."""
    return next((side for most, side in ((300, 256), (600, 192), (1000, 160)) if images <= most), 112)


def _patch_images(findings: Findings, chosen: NDArray[np.int64]) -> list[list[int]]:
    """Return for each landmark the images its patches show, in even steps from the most to the least confident one."""
    relative_confidence = findings.relative_confidence()[chosen]
    images_of = []
    for landmark in range(findings.landmarks):
        order = np.argsort(-relative_confidence[:, landmark], kind="stable")
        order = order[np.isfinite(findings.xy[chosen[order], landmark]).all(axis=1)]
        picks = np.unique(np.linspace(0, len(order) - 1, min(PATCHES, len(order))).round().astype(int))
        images_of.append(chosen[order[picks]].tolist())
    return images_of


def gallery(findings: Findings, album: Album, edited: PointSet | None = None) -> list[dict[str, Any]]:
    """Return the gallery's images, the best first.

    Args:
        findings: Landmarks of all images.
        album: Pictures of the chosen images.
        edited: The points of an edit, whose edges are drawn.

    Returns:
        For each image a dictionary: `id`, `index` among the findings, `rank`, `picture` (thumbnail), `radius` of a point's
        circle, `points` (landmark, x, y, hollow), `edges` (data of an SVG path), `error` in percent or None,
        `relative_confidence` of each landmark and `mean_confidence`, both in percent of the landmark's median.
    """
    relative_confidence, hollow = findings.relative_confidence(), findings.hollow()
    difficulty = findings.difficulty()[album.chosen]
    shown = []
    for rank, position in enumerate(np.argsort(difficulty, kind="stable").tolist()):
        index, picture = int(album.chosen[position]), album.thumbnails[position]
        places = picture.points(findings.xy[index])
        points = [
            (k, f"{x:.1f}", f"{y:.1f}", bool(hollow[index, k]))
            for k, (x, y) in enumerate(places.tolist())
            if np.isfinite(x + y)
        ]
        error = None if findings.errors is None or not np.isfinite(findings.errors[index]) else findings.errors[index]
        percents = np.rint(100 * relative_confidence[index].clip(0, 9.99)).astype(int).tolist()
        shown.append(
            {
                "id": findings.ids[index],
                "index": index,
                "rank": rank,
                "picture": picture,
                "radius": f"{0.021 * max(picture.width, picture.height):.1f}",
                "points": points,
                "edges": edge_path(edited, places, hollow[index]),
                "error": error,
                "relative_confidence": percents,
                "mean_confidence": round(float(np.mean(np.minimum(percents, 100)))),
            }
        )
    return shown


def opening(shown: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the groups in which a gallery opens: the best images, the worst, then the others from the worst."""
    ends = min(EXTREMES, len(shown) // 2)
    best, middle, worst = shown[:ends], shown[ends : len(shown) - ends], shown[len(shown) - ends :]
    groups = [("Best", list(best)), ("Worst", list(worst[::-1])), ("All others, worst first", list(middle[::-1]))]
    return [group for group in groups if group[1]]


def landmark_cards(
    findings: Findings,
    album: Album,
    flip_map: Sequence[int],
    quality: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    edited: PointSet | None = None,
) -> list[dict[str, Any]]:
    """Return the content of each landmark's card.

    Args:
        findings: Landmarks of all images.
        album: Pictures of the chosen images.
        flip_map: Mirror partner of each landmark, `NONE` for no partner.
        quality: The content of `quality.json`, if it was measured.
        metrics: The content of `metrics.json`, if the run was scored.
        edited: The points of an edit.

    Returns:
        For each landmark a dictionary: `number`, `montage`, `heat` (URI of its heat map), `point` (what an edit made of it),
        `figures` (name, value, meaning) and `notes`, its problems.
    """
    places = coordinates.in_square(findings.xy, findings.sizes[:, None])
    quality, metrics = quality or {}, metrics or {}
    rates = {"found_rate_per_landmark": findings.found_rate(), "mean_probability": findings.mean_probability()}
    points, cards = edited_landmarks(edited, flip_map, findings.landmarks), []
    for k in range(findings.landmarks):
        cards.append(
            {
                "number": k,
                "montage": album.montages[k],
                "heat": pictures.heat_map(places[:, k], (230, 30, 60)),
                "point": points[k],
                "figures": _figures(k, {**quality, **rates}, metrics),
                "notes": _notes(k, quality, metrics),
            }
        )
    return cards


_OF_A_LANDMARK = (
    ("Detected", "detection_rate_per_landmark", 100.0, " %", "share of the images in which it is detected"),
    ("Found", "found_rate_per_landmark", 100.0, " %", "share of the images in which it is there, by its probability"),
    ("Probability", "mean_probability", 1.0, "", "mean of its probability of being there, 0 to 1"),
    ("Equivariance", "equivariance_per_landmark", 1.0, " %", "its error when the image is warped, % of the side"),
    ("Mirror error", "flip_per_landmark", 1.0, " %", "its distance to its partner in the mirror image, % of the side"),
    ("Repeatability", "repeatability_per_landmark", 100.0, " %", "share of the warped images in which it is detected again"),
    ("Spread", "spread_per_landmark", 1.0, " %", "standard deviation of its position over the images, % of the side"),
    ("Sharpness", "sharpness_per_landmark", 1.0, "", "sharpness of its heatmap's peak, 0 to 1"),
    ("Compactness", "compactness_per_landmark", 1.0, "", "silhouette of its descriptors, -1 to 1"),
)  # fmt: skip
"""Name, key of the label-free quality, factor, unit and meaning of a landmark's measures."""


def _figures(k: int, quality: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of a landmark's measures; a dash if only other landmarks have a number."""
    rows = [(name, quality.get(key), factor, unit, meaning) for name, key, factor, unit, meaning in _OF_A_LANDMARK]
    meaning = "error of its prediction from the annotation; high if the landmark is unstable"
    rows.insert(2, ("Backward NME", metrics.get("backward_per_landmark"), 1.0, " %", meaning))
    figures = []
    for name, values, factor, unit, meaning in rows:
        if values is not None:
            value = _at(values, k)
            figures.append((name, NO_NUMBER if value is None else f"{format_number(value * factor)}{unit}", meaning))
    return figures


def _at(values: Sequence[float | None] | None, k: int) -> float | None:
    value = None if values is None or k >= len(values) else values[k]
    return None if value is None else float(value)


def _notes(k: int, quality: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    notes = []
    if k in (quality.get("static_landmarks") or []):
        notes.append("does not move with the object")
    rate = _at(quality.get("detection_rate_per_landmark"), k)
    if rate is not None and rate < RARE:
        notes.append(f"detected in only {100 * rate:.0f} % of the images")
    if k in unstable_landmarks(metrics):
        notes.append("does not keep its place on the object")
    return notes


def unstable_landmarks(metrics: Mapping[str, Any]) -> list[int]:
    """Return the landmarks whose backward error is more than twice the median landmark's."""
    errors = np.array([np.nan if e is None else e for e in metrics.get("backward_per_landmark") or []], np.float64)
    if not np.isfinite(errors).any():
        return []
    return np.flatnonzero(errors > 2 * np.nanmedian(errors)).tolist()
