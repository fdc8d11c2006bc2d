"""What the gallery and the landmark cards show: pictures cut from images as they stream by, and the figures beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import letterbox
from ray_kplm.report import pictures
from ray_kplm.report.charts import number
from ray_kplm.schemas import NONE

PATCHES, PATCH_COLUMNS, PATCH_SIDE = 12, 6, 56
_PATCH_REACH = 0.13
"""Half a patch's side, share of the image's longer side."""
_MEAN_SIDE = 96
NO_NUMBER = "\N{EN DASH}"
HOLLOW_BELOW = 0.25
"""A landmark is drawn hollow where its confidence is below this share of what is usual for it."""
EXTREMES = 12
"""Best and worst images that a gallery opens with, of each."""


@dataclass(frozen=True)
class Findings:
    """K landmarks in N images of a split.

    ids: names of the images. sizes: int (N, 2), width and height, pixels. xy: float (N, K, 2), pixels of the image, NaN: not
    detected. confidence: float (N, K). errors: forward NME of each image (N,), percent, NaN: none; None without annotation.
    """

    ids: Sequence[str]
    sizes: NDArray
    xy: NDArray
    confidence: NDArray
    errors: NDArray | None = None

    @property
    def landmarks(self) -> int:
        return int(self.xy.shape[1])

    def relative_confidence(self) -> NDArray[np.float64]:
        """(N, K): confidence relative to the landmark's median; 0 where it was not detected."""
        usual = np.median(self.confidence, axis=0)
        relative = self.confidence / np.maximum(usual, 1e-9)
        return np.where(np.isfinite(self.xy).all(axis=2), relative, 0.0)

    def difficulty(self) -> NDArray[np.float64]:
        """(N,): what orders images, best first: the error where there is one, else how unsure the landmarks are."""
        unsure = 1 - self.relative_confidence().clip(0, 1).mean(axis=1)
        if self.errors is None:
            return unsure
        return np.where(np.isfinite(self.errors), self.errors, np.nanmax(self.errors, initial=0.0) + unsure)


def choose(difficulty: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """Images for a gallery, ascending: the best, the worst and a seeded sample of what lies between."""
    order = np.argsort(difficulty, kind="stable")
    if count >= len(order):
        return np.sort(order)
    ends = min(EXTREMES, count // 2)
    middle = order[ends : len(order) - ends]
    between = np.random.default_rng(seed).choice(middle, count - 2 * ends, replace=False)
    return np.sort(np.concatenate([order[:ends], between, order[len(order) - ends :]]))


@dataclass(frozen=True)
class Album:
    """Pictures of the chosen images: a thumbnail each, a montage of patches a landmark (None: never seen), their mean."""

    chosen: NDArray[np.int64]
    thumbnails: list[pictures.Thumbnail]
    montages: list[pictures.Thumbnail | None]
    mean: str


def make_album(findings: Findings, chosen: NDArray[np.int64], images: Iterable[NDArray[np.uint8]]) -> Album:
    """Look once at each chosen image. They come in the order of `chosen`, indices into the findings."""
    side = thumbnail_side(len(chosen))
    wanted = _patch_images(findings, chosen)
    patches: dict[tuple[int, int], NDArray[np.uint8]] = {}
    thumbnails = []
    total = np.zeros((_MEAN_SIDE, _MEAN_SIDE, 3))
    for index, image in zip(chosen.tolist(), images, strict=True):
        thumbnails.append(pictures.thumbnail(image, side))
        total += letterbox(image, _MEAN_SIDE)[0]
        reach = _PATCH_REACH * max(image.shape[:2])
        for landmark, of in enumerate(wanted):
            if index in of:
                patches[landmark, index] = pictures.patch(image, findings.xy[index, landmark], reach, PATCH_SIDE)
    montages = []
    for landmark, of in enumerate(wanted):
        cut = [patches[landmark, index] for index in of]
        montages.append(pictures.montage(cut, PATCH_COLUMNS) if cut else None)
    return Album(chosen, thumbnails, montages, pictures.mean_picture(total / max(len(chosen), 1)))


def thumbnail_side(images: int) -> int:
    """Longer side of a gallery's pictures, pixels: the more there are, the smaller, so that a page stays below some 30 MB."""
    return next((side for most, side in ((300, 256), (600, 192), (1000, 160)) if images <= most), 112)


def _patch_images(findings: Findings, chosen: NDArray[np.int64]) -> list[list[int]]:
    """For each landmark the images its patches are cut from: evenly from the surest to the least sure."""
    relative_confidence = findings.relative_confidence()[chosen]
    found = []
    for landmark in range(findings.landmarks):
        order = np.argsort(-relative_confidence[:, landmark], kind="stable")
        order = order[np.isfinite(findings.xy[chosen[order], landmark]).all(axis=1)]
        picks = np.unique(np.linspace(0, len(order) - 1, min(PATCHES, len(order))).round().astype(int))
        found.append(chosen[order[picks]].tolist())
    return found


def gallery(findings: Findings, album: Album) -> list[dict[str, Any]]:
    """The gallery's images, best first: id, thumbnail, points (landmark, x, y, hollow), rank, error and confidence in %."""
    relative_confidence = findings.relative_confidence()
    difficulty = findings.difficulty()[album.chosen]
    shown = []
    for rank, place in enumerate(np.argsort(difficulty, kind="stable").tolist()):
        index, picture = int(album.chosen[place]), album.thumbnails[place]
        points = [
            (k, f"{x:.1f}", f"{y:.1f}", bool(relative_confidence[index, k] < HOLLOW_BELOW))
            for k, (x, y) in enumerate(picture.points(findings.xy[index]).tolist())
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
                "error": error,
                "relative_confidence": percents,
                "sure": round(float(np.mean(np.minimum(percents, 100)))),
            }
        )
    return shown


def opening(shown: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A gallery as it opens: the best, the worst, then the others from the worst."""
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
) -> list[dict[str, Any]]:
    """A card a landmark: its colour, pictures, mirror partner, figures (name, value, meaning) and what is wrong with it."""
    places = coordinates.in_square(findings.xy, findings.sizes[:, None])
    quality, metrics = quality or {}, metrics or {}
    cards = []
    for k in range(findings.landmarks):
        partner = int(flip_map[k]) if k < len(flip_map) else NONE
        cards.append(
            {
                "number": k,
                "montage": album.montages[k],
                "heat": pictures.heat_map(places[:, k], (230, 30, 60)),
                "partner": None if partner == NONE else partner,
                "figures": _figures(k, quality, metrics),
                "notes": _notes(k, quality, metrics),
            }
        )
    return cards


_OF_A_LANDMARK = (
    ("Detected", "detection_rate_per_landmark", 100.0, " %", "share of images in which it is found"),
    ("Equivariance", "equivariance_per_landmark", 1.0, " %", "how far it is off when the image is warped, % of the side"),
    ("Mirror error", "flip_per_landmark", 1.0, " %", "how far image and mirror image disagree, % of the side"),
    ("Repeatability", "repeatability_per_landmark", 100.0, " %", "share of warped images in which it is found again"),
    ("Spread", "spread_per_landmark", 1.0, " %", "how much its place varies over the images, % of the side"),
    ("Sharpness", "sharpness_per_landmark", 1.0, "", "how peaked its heatmap is, 0 to 1"),
    ("Compactness", "compactness_per_landmark", 1.0, "", "how clearly its descriptors are its own, -1 to 1"),
)  # fmt: skip
"""Name, key of the label-free quality, factor, unit and meaning."""


def _figures(k: int, quality: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and meaning; a dash where other landmarks have a number."""
    rows = [(name, quality.get(key), factor, unit, meaning) for name, key, factor, unit, meaning in _OF_A_LANDMARK]
    meaning = "error when it is predicted from the annotation; high: it wanders"
    rows.insert(2, ("Backward NME", metrics.get("backward_per_landmark"), 1.0, " %", meaning))
    figures = []
    for name, values, factor, unit, meaning in rows:
        if values is not None:
            value = _at(values, k)
            figures.append((name, NO_NUMBER if value is None else f"{number(value * factor)}{unit}", meaning))
    return figures


def _at(values: Sequence[float | None] | None, k: int) -> float | None:
    value = None if values is None or k >= len(values) else values[k]
    return None if value is None else float(value)


def _notes(k: int, quality: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    notes = []
    if k in (quality.get("static_landmarks") or []):
        notes.append("does not move with the object")
    rate = _at(quality.get("detection_rate_per_landmark"), k)
    if rate is not None and rate < 0.2:
        notes.append(f"found in {100 * rate:.0f} % of the images only")
    if k in wandering(metrics):
        notes.append("wanders on the object")
    return notes


def wandering(metrics: Mapping[str, Any]) -> list[int]:
    """Landmarks whose backward error is more than twice the median's."""
    errors = np.array([np.nan if e is None else e for e in metrics.get("backward_per_landmark") or []], np.float64)
    if not np.isfinite(errors).any():
        return []
    return np.flatnonzero(errors > 2 * np.nanmedian(errors)).tolist()
