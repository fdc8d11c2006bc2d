"""The scores as a person reads them: lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_kplm.evaluation.detection import NEAR_SHARE

STAGES = {"stage2": "stage 2", "stage1": "stage 1", "warmup": "warm-up"}

_METRICS = {
    "forward_nme": "forward NME, %",
    "backward_nme": "backward NME, %",
    "regressed_accuracy": "regressed accuracy, %",
    "raw_accuracy": "raw accuracy, %",
    "pck": "PCK, %",
    "oks": "OKS",
}


def lines(metrics: dict[str, Any]) -> Iterator[str]:
    """Of what `steps.evaluate` returns."""
    yield from _stages(metrics)
    yield ""
    yield from _regressors(metrics)
    yield ""
    yield from _without_regressor(metrics)
    for column, found in metrics["buckets"].items():
        yield ""
        yield from _buckets(column, found)
    if metrics.get("protocol"):
        yield ""
        yield from protocol_lines(metrics["protocol"], metrics["images"])
    yield ""
    yield from _footer(metrics)


def _stages(metrics: dict[str, Any]) -> Iterator[str]:
    yield _row("", "forward NME", "all", "backward NME", "points/image")
    for stage, scores in metrics["stages"].items():
        yield _row(
            STAGES[stage],
            _deviating(scores["forward_nme"], scores["forward_nme_sd"]),
            _percent(scores["forward_nme_all"]),
            _percent(scores["backward_nme"]),
            _plain(scores["points_per_image"]),
        )
    yield _row("mean shape", _percent(metrics["mean_shape_nme"]), "", "", "")


def _regressors(metrics: dict[str, Any]) -> Iterator[str]:
    """NME by the number of images that the regressors are fitted on, as far as there are so many."""
    forward, backward = metrics["forward_by_images"], metrics["backward_by_images"]
    shown = [size for size, found in forward.items() if size == "all" or int(size) <= found["images"]]
    yield _row("images", *shown)
    for name, found in (("forward", forward), ("backward", backward)):
        yield _row(name, *(_deviating(found[size]["mean"], found[size]["sd"], unit="") for size in shown))


def _without_regressor(metrics: dict[str, Any]) -> Iterator[str]:
    raw, detection = metrics["raw"], metrics["detection"]
    yield _row(f"within, px of {raw['reference_side']}", *raw["accuracy"])
    yield _row("raw accuracy", *(_percent(value) for value in raw["accuracy"].values()))
    for name, label in (("precision", "precision"), ("recall", "recall"), ("f_measure", "F")):
        yield _row(label, *(_percent(found[name]) for found in detection.values()))
    shares = ", ".join(f"{_percent(value)} at {share}" for share, value in raw["pck"].items())
    yield f"PCK of the normaliser: {shares}; NMI of landmarks and true points: {_plain(metrics['nmi'])}"


def _buckets(column: str, found: dict[str, Any]) -> Iterator[str]:
    yield _row(column, "images", "forward NME", "backward NME")
    for name, scores in found["ranges"].items():
        yield _row(name, str(scores["images"]), _percent(scores["forward_nme"]), _percent(scores["backward_nme"]))
    if found["images_in_none"]:
        yield f"{found['images_in_none']} test images are in no range of {column}"


def protocol_lines(protocol: dict[str, Any], images: int) -> Iterator[str]:
    """A block for each metric: ours in the first line, then each method that the thesis has figures of."""
    yield f"protocol {protocol['name']}: {len(protocol['points'])} points; {protocol['split']}"
    expected = protocol["images"][1]
    if expected not in (None, images):
        yield f"(the thesis tests on {expected} images, this dataset on {images}: figures are not of the same images)"
    for metric, label in _METRICS.items():
        parts = [name.split("/", 1)[1] for name in protocol["figures"] if name.startswith(f"{metric}/")]
        if not parts:
            continue
        yield _row(label, *parts, first=30)
        yield _row("  ours", *(_plain(protocol["figures"][f"{metric}/{part}"]) for part in parts), first=30)
        for row in protocol["published"]:
            cells = [row["figures"].get(f"{metric}/{part}") for part in parts]
            if any(cell is not None for cell in cells):
                line = _row(f"  {row['method']}", *(_plain(cell) for cell in cells), first=30)
                yield f"{line}   thesis, {row['source']}"


def _footer(metrics: dict[str, Any]) -> Iterator[str]:
    points = metrics["points"]
    hidden = f", {points['hidden']} of them hidden" if points["hidden"] else ""
    yield (
        f"{metrics['landmarks']} landmarks on {metrics['images']} test images; regressors from {metrics['train_images']} "
        f"training images, 10 draws; {metrics['seconds']:.0f} s"
    )
    yield (
        f"{points['scored']} points scored: {points['annotated']} annotated{hidden}, {points['not_annotated']} not; "
        f"{metrics['left_out']['images_without_normaliser']} images without normaliser"
    )
    if began := metrics.get("generic_keypoints"):
        near = f"{began['near_percent']:.0f} %" if began["near_percent"] is not None else "none known to be"
        yield (
            f"it began with {began['points_per_image']:.1f} generic keypoints an image ({began['detector']}), {near} within "
            f"{100 * NEAR_SHARE:.0f} % of the normaliser of a true point"
        )
    backward = ", ".join(f"{k}: {_percent(v)}" for k, v in enumerate(metrics["backward_per_landmark"]))
    yield f"backward NME of each landmark: {backward}"


def _row(name: str, *cells: str, first: int = 18) -> str:
    return (f"{name:{first}}" + "".join(f"{cell:>16}" for cell in cells)).rstrip()


def _deviating(mean: float | None, sd: float | None, unit: str = " %") -> str:
    """The deviation is that over draws; all images are drawn once."""
    return "-" if mean is None else f"{mean:.2f}{unit}" + (f" ± {sd:.2f}" if sd else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
