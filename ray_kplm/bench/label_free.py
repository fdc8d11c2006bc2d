"""`kplm bench quality`: how well label-free measures rank checkpoints by their forward NME."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ray_kplm.analysis.evaluate import stage_scores
from ray_kplm.analysis.label_free import measurable, measure_quality
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.evaluation.stages import STAGE1, STAGE2, WARMUP
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.report.text_table import align, cell
from ray_kplm.run import Run
from ray_kplm.runtime.session import session

MEASURES = (
    "score",
    "equivariance_error",
    "repeatability",
    "flip_error",
    "detection_rate",
    "peak_sharpness",
    "cluster_compactness",
    "positional_spread",
    "static_share",
    "min_landmark_distance",
    "coverage",
    "expected_distance",
    "transfer",
    "landmark_transfer",
    "mirror_identity",
    "shift_error",
    "shift_error_median",
    "background_error",
    "position_identity",
    "inside_box",
    "box_coverage",
)
"""The measures of `evaluation.label_free.measure` that are correlated."""
_MIN_CHECKPOINTS = 4
"""Number of values below which no correlation is reported."""
_PER_LANDMARK = ("equivariance_per_landmark", "backward_per_landmark")


def bench(runs: Sequence[str], progress: ProgressCallback) -> dict[str, Any]:
    """Measure all finished checkpoints of some runs and correlate the measures with forward NME.

    Args:
        runs: Run directories.
        progress: Called before each run, and as its checkpoints are measured and scored.

    Returns:
        A dictionary for JSON:

        - `checkpoints`: rows of run, dataset, stage, forward_nme, backward_nme (None without annotation) and `MEASURES`.
        - `correlations`: for all checkpoints of a dataset, and for those of stage 2, by measure the Spearman correlation
          with forward NME and the number of checkpoints.
        - `per_landmark`: the median over checkpoints of the correlation of equivariance error and backward NME over landmarks.
        - `seconds`: duration of the measurement.
    """
    started = time.monotonic()
    rows = []
    for index, name in enumerate(runs):
        rows += _measure_run(Run.open(name), part_of(progress, index / len(runs), (index + 1) / len(runs)))
    progress(1.0, "all checkpoints")
    by_measure, over_landmarks = correlations(rows)
    return {
        "checkpoints": [{k: v for k, v in row.items() if k not in _PER_LANDMARK} for row in rows],
        "correlations": by_measure,
        "per_landmark": over_landmarks,
        "seconds": time.monotonic() - started,
    }


def correlations(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, float | None]]:
    """Return `correlations` and `per_landmark` of `bench` for each dataset's checkpoints, and for those of stage 2."""
    groups = defaultdict(list)
    for row in rows:
        groups[f"{row['dataset']}, all"].append(row)
        if row["stage"] == STAGE2:
            groups[f"{row['dataset']}, stage 2"].append(row)
    return (
        {name: {m: _correlation(group, m) for m in MEASURES} for name, group in groups.items()},
        {name: _over_landmarks(group) for name, group in groups.items()},
    )


def lines(results: dict[str, Any]) -> list[str]:
    """Return the checkpoints and the correlations of `bench` as text tables."""
    names = ("forward_nme", *MEASURES)
    table = [["checkpoint", *names]]
    for row in results["checkpoints"]:
        table.append([f"{row['run']} {row['stage']}", *(cell(row[name], "{:.3f}") for name in names)])
    spearman = [["Spearman with forward NME", *MEASURES]]
    for name, by_measure in results["correlations"].items():
        cells = [cell(by_measure[measure]["spearman"], "{:+.2f}") for measure in MEASURES]
        spearman.append([f"{name} ({max(by_measure[measure]['checkpoints'] for measure in MEASURES)})", *cells])
    return [*align(table), "", *align(spearman)]


def _measure_run(run: Run, progress: ProgressCallback) -> list[dict[str, Any]]:
    """Return the measures and scores of each finished checkpoint of a run."""
    dataset = Dataset.open(run.config.dataset)
    stages = measurable(run)
    # The names that `evaluate` gives these rounds: their predictions may exist already.
    scored_as = {"0": WARMUP, str(run.config.stage1.rounds): STAGE1}
    names = [scored_as.get(stage, stage) for stage in stages]
    measured = {}
    with session(run.config.compute):
        for index, stage in enumerate(stages):
            progress(0.5 * index / len(stages), f"{run.folder}: checkpoint {index + 1} of {len(stages)}")
            measured[stage] = measure_quality(run, stage)
        scores = stage_scores(run, names, part_of(progress, 0.5, 1.0)) if dataset.has_landmarks and stages else {}
    rows = []
    for stage, name in zip(stages, names, strict=True):
        score = scores.get(name, {})
        rows.append(
            {
                "run": run.folder.name,
                "dataset": dataset.meta.get("name") or dataset.root.name,
                "stage": stage,
                "forward_nme": score.get("forward_nme"),
                "backward_nme": score.get("backward_nme"),
                **{measure: measured[stage][measure] for measure in MEASURES},
                "equivariance_per_landmark": measured[stage]["equivariance_per_landmark"],
                "backward_per_landmark": score.get("backward_per_landmark"),
            }
        )
    return rows


def _correlation(rows: Sequence[dict[str, Any]], measure: str) -> dict[str, Any]:
    pairs = [(row[measure], row["forward_nme"]) for row in rows]
    return _spearman([pair for pair in pairs if None not in pair])


def _over_landmarks(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the median over checkpoints of the correlation of equivariance error and backward NME over landmarks."""
    coefficients = []
    for row in rows:
        pairs = zip(row["equivariance_per_landmark"], row["backward_per_landmark"] or (), strict=False)
        coefficients.append(_spearman([pair for pair in pairs if None not in pair])["spearman"])
    known = [value for value in coefficients if value is not None]
    return float(np.median(known)) if known else None


def _spearman(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the rank correlation, None for too few pairs or if one side is constant, and the number of pairs."""
    values = np.array(pairs, np.float64).reshape(-1, 2)
    defined = len(values) >= _MIN_CHECKPOINTS and (np.ptp(values, axis=0) > 0).all()
    return {"spearman": float(spearmanr(*values.T).statistic) if defined else None, "checkpoints": len(values)}
