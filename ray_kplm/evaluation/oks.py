"""Average precision and recall over Object Keypoint Similarity, as COCO defines and computes them (thesis Table 6.11).

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#keypoints-eval. The values are
computed by pycocotools (the extra `coco`), for images that show one object each.
"""

import contextlib
import importlib.util
import io
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_kplm.errors import ConfigError

Floats = NDArray[np.float64]

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""OKS thresholds over which AP and AR are averaged."""

SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107, "knee": 0.087,
    "ankle": 0.089,
}  # fmt: skip
"""COCO's standard deviation of annotators by part of the body, in square roots of the object's area."""

_FAR = 1e9
"""Coordinate of a point that was not found: its similarity to any annotation is 0."""


def available() -> bool:
    """Return whether pycocotools is installed."""
    return importlib.util.find_spec("pycocotools") is not None


def require() -> None:
    """Raise ConfigError if pycocotools is not installed."""
    if not available():
        raise ConfigError('OKS: needs pycocotools, which is not installed; pip install "ray-kplm[coco]"')


def oks_figures(
    found: ArrayLike,
    score: ArrayLike,
    truth: ArrayLike,
    area: ArrayLike,
    sigmas: ArrayLike,
    *,
    also_at: tuple[float, ...] = (0.4,),
) -> dict[str, float]:
    """Compute average precision and recall over OKS.

    Images without an area or without any annotated point are left out.

    Args:
        found: (N, L, 2), pixels, NaN for a point that was not found, whose similarity is 0.
        score: (N,), confidence by which the images are ranked.
        truth: (N, L, 2), pixels, NaN for a point that is not annotated, which is not scored.
        area: (N,), area of the object, square pixels.
        sigmas: (L,), see `SIGMAS`.
        also_at: Thresholds reported beside COCO's 0.5 and 0.75; they do not enter AP and AR.

    Returns:
        `AP` and `AR`, both at single thresholds (`AP_0.4`, `AP_0.5`, `AP_0.75`, ...), from 0 to 1, and `images`, the number
        of images scored; `images` alone if it is 0.

    Raises:
        ConfigError: pycocotools is not installed.
    """
    require()
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    score, area = np.asarray(score, dtype=np.float64), np.asarray(area, dtype=np.float64)
    annotated = np.isfinite(truth).all(axis=-1)
    scored = np.flatnonzero(annotated.any(axis=1) & (area > 0))
    if not len(scored):
        return {"images": 0}
    thresholds = sorted({*also_at, *COCO_THRESHOLDS})
    result = _evaluated(
        found[scored], score[scored], truth[scored], area[scored], np.asarray(sigmas, dtype=np.float64), thresholds
    )
    precision = result["precision"][:, :, 0, 0, 0].mean(axis=1)  # over 101 levels of recall
    recall = result["recall"][:, 0, 0, 0]
    coco = [thresholds.index(threshold) for threshold in COCO_THRESHOLDS]
    figures = {"AP": float(precision[coco].mean()), "AR": float(recall[coco].mean()), "images": len(scored)}
    for threshold in sorted({*also_at, 0.5, 0.75}):
        figures[f"AP_{threshold:g}"] = float(precision[thresholds.index(threshold)])
        figures[f"AR_{threshold:g}"] = float(recall[thresholds.index(threshold)])
    return figures


def _evaluated(
    found: Floats, score: Floats, truth: Floats, area: Floats, sigmas: Floats, thresholds: list[float]
) -> dict[str, Any]:
    """Return pycocotools' `precision` (T, R, 1, 1, 1) and `recall` (T, 1, 1, 1) for T thresholds and R levels of recall."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotations(xy: Floats, seen: NDArray[np.bool_]) -> Any:
        """Return a COCO data set of one object in each image."""
        flat = np.concatenate([np.where(np.isfinite(xy), xy, _FAR), 2.0 * seen[..., None]], axis=-1)
        objects = [
            {
                "id": index + 1, "image_id": index + 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 1, 1],
                "area": float(area[index]), "keypoints": points.ravel().tolist(), "num_keypoints": int(seen[index].sum()),
                "score": float(score[index]),
            }
            for index, points in enumerate(flat)
        ]  # fmt: skip
        coco = COCO()
        images = [{"id": index + 1} for index in range(len(xy))]
        coco.dataset = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "object"}]}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        annotated: NDArray[np.bool_] = np.asarray(np.isfinite(truth).all(axis=-1))
        evaluation = COCOeval(annotations(truth, annotated), annotations(found, np.ones_like(annotated)), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.iouThrs = np.array(thresholds)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluation.params.maxDets = [1]
        evaluation.evaluate()
        evaluation.accumulate()
    return dict(evaluation.eval)
