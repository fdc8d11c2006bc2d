"""The scores of a run against the annotation as text tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_kplm.datasets.missing_marks import PointCounts
from ray_kplm.evaluation.detection import NEAR_SHARE
from ray_kplm.evaluation.stages import STAGE_TITLES
from ray_kplm.report.text_table import NO_VALUE, align, cell

_PERCENT = "{:.2f} %"

_METRICS = {
    "forward_nme": "forward NME, %",
    "backward_nme": "backward NME, %",
    "regressed_accuracy": "regressed accuracy, %",
    "raw_accuracy": "raw accuracy, %",
    "pck": "PCK, %",
    "oks": "OKS",
}


def score_lines(metrics: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of all tables.

    Args:
        metrics: The scores that `analysis.evaluate.evaluate` returns.
    """
    yield from _stages(metrics)
    yield ""
    yield from _by_training_images(metrics)
    yield ""
    yield from _without_regressor(metrics)
    for column, scores in metrics["buckets"].items():
        yield ""
        yield from _buckets(column, scores)
    if metrics.get("protocol"):
        yield ""
        yield from protocol_lines(metrics["protocol"], metrics["images"])
    yield ""
    yield from _notes(metrics)


def protocol_lines(protocol: dict[str, Any], images: int) -> Iterator[str]:
    """Yield a table for each metric of a protocol: this run's scores in the first row, then the published ones.

    Args:
        protocol: The result of `protocol_scores.protocol_scores`.
        images: Number of test images of the dataset.
    """
    yield f"protocol {protocol['name']}: {len(protocol['points'])} points; {protocol['split']}"
    expected = protocol["images"][1]
    if expected not in (None, images):
        yield f"(the thesis tests on {expected} images, this dataset has {images}: the scores are of different images)"
    for metric, label in _METRICS.items():
        parts = [name.split("/", 1)[1] for name in protocol["figures"] if name.startswith(f"{metric}/")]
        if not parts:
            continue
        rows = [[label, *parts], ["  this run", *(cell(protocol["figures"][f"{metric}/{part}"]) for part in parts)]]
        for row in protocol["published"]:
            values = [row["figures"].get(f"{metric}/{part}") for part in parts]
            if any(value is not None for value in values):
                rows.append([f"  {row['method']}", *map(cell, values), f"thesis, {row['source']}"])
        yield from align(rows, left=(0, 1 + len(parts)))


def _stages(metrics: dict[str, Any]) -> Iterator[str]:
    rows = [["", "forward NME", "all images", "backward NME", "points/image"]]
    for stage, scores in metrics["stages"].items():
        rows.append(
            [
                STAGE_TITLES[stage],
                _with_deviation(scores["forward_nme"], scores["forward_nme_sd"], _PERCENT),
                cell(scores["forward_nme_all"], _PERCENT),
                cell(scores["backward_nme"], _PERCENT),
                cell(scores["points_per_image"]),
            ]
        )
    rows.append(["mean shape", cell(metrics["mean_shape_nme"], _PERCENT)])
    yield from align(rows)


def _by_training_images(metrics: dict[str, Any]) -> Iterator[str]:
    """Yield the errors by the number of images the regressors are fitted on, up to as many as there are."""
    forward, backward = metrics["forward_by_images"], metrics["backward_by_images"]
    sizes = [size for size, scores in forward.items() if size == "all" or int(size) <= scores["images"]]
    rows = [["training images", *sizes]]
    for name, scores in (("forward NME, %", forward), ("backward NME, %", backward)):
        rows.append([name, *(_with_deviation(scores[size]["mean"], scores[size]["sd"], "{:.2f}") for size in sizes)])
    yield from align(rows)


def _without_regressor(metrics: dict[str, Any]) -> Iterator[str]:
    raw, detection = metrics["raw"], metrics["detection"]
    rows = [
        [f"within, px of {raw['reference_side']}", *raw["accuracy"]],
        ["raw accuracy", *(cell(value, _PERCENT) for value in raw["accuracy"].values())],
    ]
    for name, label in (("precision", "precision"), ("recall", "recall"), ("f_measure", "F-measure")):
        rows.append([label, *(cell(scores[name], _PERCENT) for scores in detection.values())])
    yield from align(rows)
    shares = ", ".join(f"{cell(value, _PERCENT)} at {share}" for share, value in raw["pck"].items())
    yield f"PCK of the normaliser: {shares}; NMI of landmarks and true points: {cell(metrics['nmi'])}"


def _buckets(column: str, scores: dict[str, Any]) -> Iterator[str]:
    rows = [[column, "images", "forward NME", "backward NME"]]
    for name, bucket in scores["ranges"].items():
        errors = (cell(bucket[f"{direction}_nme"], _PERCENT) for direction in ("forward", "backward"))
        rows.append([name, str(bucket["images"]), *errors])
    yield from align(rows)
    if scores["images_in_none"]:
        yield f"{scores['images_in_none']} test images are in no range of {column}"


def _notes(metrics: dict[str, Any]) -> Iterator[str]:
    points = metrics["points"]
    hidden = f", {points['hidden']} of them hidden" if points["hidden"] else ""
    yield (
        f"{metrics['landmarks']} landmarks on {metrics['images']} test images; regressors fitted on "
        f"{metrics['train_images']} training images, 10 draws; {metrics['seconds']:.0f} s"
    )
    yield (
        f"{points['scored']} points scored: {points['annotated']} annotated{hidden}, {points['not_annotated']} not; "
        f"{metrics['left_out']['images_without_normaliser']} images without normaliser"
    )
    yield from PointCounts(**metrics.get("doubtful_points", {})).lines()
    if generic := metrics.get("generic_keypoints"):
        near = f"{generic['near_percent']:.0f} %" if generic["near_percent"] is not None else "an unknown share"
        yield (
            f"training began with {generic['points_per_image']:.1f} generic keypoints per image ({generic['detector']}), "
            f"{near} within {100 * NEAR_SHARE:.0f} % of the normaliser of a true point"
        )
    if seen := metrics.get("visibility"):
        yield (
            f"probabilities of being there: AUC {cell(seen['auc'])}, of single landmarks {cell(seen['auc_mean'])}; calibration "
            f"error {cell(seen['ece'])}; {seen['hidden']} of {seen['pairs']} landmarks hidden"
        )
    errors = ", ".join(f"{k}: {cell(value, _PERCENT)}" for k, value in enumerate(metrics["backward_per_landmark"]))
    yield f"backward NME of each landmark: {errors}"


def _with_deviation(mean: float | None, deviation: float | None, form: str) -> str:
    """Return a mean with its standard deviation over draws, which is 0 if all images are drawn."""
    if mean is None:
        return NO_VALUE
    return form.format(mean) + (f" ± {deviation:.2f}" if deviation else "")
