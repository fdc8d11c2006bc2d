"""The headline numbers of a run, for its page and its model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_kplm.report.charts import format_number


def headlines(quality: Mapping[str, Any], metrics: Mapping[str, Any], landmarks: int) -> list[tuple[str, str, str]]:
    """Return the headline numbers of a run: name, value and meaning.

    Args:
        quality: The content of `quality.json`; empty if it was not measured.
        metrics: The content of `metrics.json`; empty if the run was not scored.
        landmarks: K.
    """
    tiles = []
    if metrics.get("forward_nme") is not None:
        mean_shape = metrics.get("mean_shape_nme")
        comparison = "" if mean_shape is None else f"; of the mean shape: {format_number(mean_shape)} %"
        text = f"error of the annotated points predicted from the landmarks{comparison}"
        tiles.append(("Forward NME", f"{format_number(metrics['forward_nme'])} %", text))
    if metrics.get("backward_nme") is not None:
        text = "error of the landmarks predicted from the annotated points; low if they keep their place on the object"
        tiles.append(("Backward NME", f"{format_number(metrics['backward_nme'])} %", text))
    for name, key, factor, meaning in _HEADLINES:
        if quality.get(key) is not None:
            tiles.append((name, f"{format_number(quality[key] * factor)} %", meaning))
    if quality.get("static_landmarks") is not None:
        static = f"{len(quality['static_landmarks'])} of {landmarks}"
        tiles.append(("Static", static, "landmarks that do not move with the object"))
    if quality.get("against"):
        text = f"of the motion of the landmarks is predicted by those of {quality['against']['run']}, and the reverse"
        if quality["against"]["agreement"] is not None:
            tiles.append(("Agreement", f"{format_number(100 * quality['against']['agreement'])} %", text))
    if quality.get("score") is not None:
        text = "of the size of a forward NME, %, for sweeps; the lower the better"
        tiles.append(("Label-free score", format_number(quality["score"]), text))
    return tiles


_HEADLINES = (
    ("Detection rate", "detection_rate", 100, "share of the landmarks that are detected, over all images"),
    ("Equivariance", "equivariance_error", 1, "of the side: error of a landmark when the image is warped"),
    ("Mirror error", "flip_error", 1, "of the side: distance of a landmark to its partner in the mirror image"),
    ("Coverage", "coverage", 1, "of the side: standard deviation of an image's landmarks about their mean"),
    (
        "Transfer",
        "transfer",
        100,
        "of the trials: two images look more alike at a landmark than elsewhere; guessing: 50 %",
    ),
    (
        "Layout reliance",
        "shift_error_median",
        1,
        "of the side: error of a landmark when the object is moved by 20 %",
    ),
    (
        "New background",
        "background_error_median",
        1,
        "of the side: motion of a landmark on another image's background",
    ),
    ("Layout identity", "position_identity", 100, "of the landmarks are told apart by their canonical position alone"),
)
"""Name, key of the label-free quality, factor and meaning."""
