"""The objective of a sweep: measured on the landmarks of a round, and on the landmark detector at the end."""

from __future__ import annotations

from typing import Any

from ray_kplm.analysis.evaluate import evaluate, stage_scores
from ray_kplm.analysis.label_free import measure_quality
from ray_kplm.analysis.recordings import rounds_have_landmarks
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.stages import STAGE1, WARMUP
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import Run
from ray_kplm.schemas import TEST

AUTO, FORWARD_NME, LABEL_FREE = "auto", "forward_nme", "label_free"
TITLES = {FORWARD_NME: "forward NME, %", LABEL_FREE: "label-free score"}

_FIGURES = ("forward_nme", "forward_nme_all", "backward_nme", "stage1_forward_nme", "stage1_backward_nme",
            "stage1_points_per_image", "landmarks")  # fmt: skip
_QUALITY = ("equivariance_error", "detection_rate", "repeatability", "static_share", "coverage", "landmarks")


def choose_objective(wanted: str, dataset: Dataset) -> str:
    """Return the objective to use; AUTO is the forward NME where the dataset has annotated test images.

    Raises:
        ConfigError: The forward NME is wanted of a dataset without annotated test images.
    """
    is_annotated = dataset.has_landmarks and TEST in dataset.manifest["splits"] and dataset.count(TEST) > 0
    if wanted == FORWARD_NME and not is_annotated:
        raise ConfigError(f"--objective {FORWARD_NME}: {dataset.root} has no annotated test images; take {LABEL_FREE}")
    if wanted == AUTO:
        return FORWARD_NME if is_annotated else LABEL_FREE
    return wanted


def measure_round(objective: str, run: Run, number: int) -> float | None:
    """Return the objective of the landmarks of a finished round. Ray must be initialised.

    Args:
        objective: FORWARD_NME or LABEL_FREE; lower is better.
        run: The run.
        number: The round; 0 is the warm-up.

    Returns:
        None where too few points are found, and where rounds have no landmarks (`method.kind: template`).
    """
    if not rounds_have_landmarks(run):
        return None
    if objective == LABEL_FREE:
        return _number(measure_quality(run, str(number))["score"])
    # By the names that `evaluate` uses, which takes the predictions from storage then.
    stage = {run.config.stage1.rounds: STAGE1, 0: WARMUP}.get(number, str(number))
    return _number(stage_scores(run, [stage])[stage]["forward_nme"])


def measure_run(
    objective: str, run: Run, progress: ProgressCallback
) -> tuple[float | None, dict[str, Any], dict[str, Any]]:
    """Return the objective of a finished run, figures for a table, and the whole evaluation, empty without annotation."""
    if objective == LABEL_FREE:
        quality = measure_quality(run, progress=progress)
        return _number(quality["score"]), {name: quality[name] for name in _QUALITY}, {}
    metrics = evaluate(run, progress)
    return _number(metrics["forward_nme"]), {name: metrics.get(name) for name in _FIGURES}, metrics


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
