"""Average precision and recall over Object Keypoint Similarity, as COCO defines and computes them (thesis Table 6.11).

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#keypoints-eval. The figures are
pycocotools' own (the extra `coco`), for images that show one object each.
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
"""AP and AR are means over these."""

SIGMAS = {
    "nose": 0.026, "eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107, "knee": 0.087,
    "ankle": 0.089,
}  # fmt: skip
"""COCO's, by part of the body: how far annotators are apart, in square roots of the area."""

_FAR = 1e9


def available() -> bool:
    """Whether pycocotools is installed."""
    return importlib.util.find_spec("pycocotools") is not None


def require() -> None:
    """Raises ConfigError where pycocotools is not installed."""
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
    """AP, AR, and both at single thresholds (`AP_0.4`, `AP_0.5`, `AP_0.75`, ...), from 0 to 1; `images`: how many were scored.

    found, truth: (N, L, 2), pixels, NaN where not found, which scores 0, or not annotated, which is left out.
    score: (N,), ranks the images. area: (N,), of the object, square pixels. sigmas: (L,).
    also_at: thresholds beside COCO's 0.5 and 0.75; they do not enter AP and AR.
    Images without area or any annotated point are left out. Raises ConfigError where pycocotools is not installed.
    """
    require()
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    score, area = np.asarray(score, dtype=np.float64), np.asarray(area, dtype=np.float64)
    annotated = np.isfinite(truth).all(axis=-1)
    scored = np.flatnonzero(annotated.any(axis=1) & (area > 0))
    if not len(scored):
        return {"images": 0}
    at = sorted({*also_at, *COCO_THRESHOLDS})
    result = _evaluated(
        found[scored], score[scored], truth[scored], area[scored], np.asarray(sigmas, dtype=np.float64), at
    )
    precision = result["precision"][:, :, 0, 0, 0].mean(axis=1)  # over 101 levels of recall
    recall = result["recall"][:, 0, 0, 0]
    coco = [at.index(threshold) for threshold in COCO_THRESHOLDS]
    figures = {"AP": float(precision[coco].mean()), "AR": float(recall[coco].mean()), "images": len(scored)}
    for threshold in sorted({*also_at, 0.5, 0.75}):
        figures[f"AP_{threshold:g}"] = float(precision[at.index(threshold)])
        figures[f"AR_{threshold:g}"] = float(recall[at.index(threshold)])
    return figures


def _evaluated(
    found: Floats, score: Floats, truth: Floats, area: Floats, sigmas: Floats, thresholds: list[float]
) -> dict[str, Any]:
    """pycocotools' precision (T, R, 1, 1, 1) and recall (T, 1, 1, 1)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def annotations(xy: Floats, seen: NDArray[np.bool_]) -> Any:
        """COCO's own structure, of one object an image."""
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

    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        annotated: NDArray[np.bool_] = np.asarray(np.isfinite(truth).all(axis=-1))
        evaluation = COCOeval(annotations(truth, annotated), annotations(found, np.ones_like(annotated)), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.iouThrs = np.array(thresholds)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluation.params.maxDets = [1]
        evaluation.evaluate()
        evaluation.accumulate()
    return dict(evaluation.eval)
