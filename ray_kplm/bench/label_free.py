"""`kplm bench quality`: which label-free measures rank checkpoints as their forward NME does."""

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
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.text_table import align
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
)
_LEAST = 4
"""Checkpoints without which there is no correlation to speak of."""


def bench(runs: Sequence[str], progress: ProgressCallback) -> dict[str, Any]:
    """Measures of every finished checkpoint of the runs, and their Spearman correlations with forward NME on each dataset.

    checkpoints: rows of run, dataset, stage, forward_nme, backward_nme (None: no labels) and MEASURES.
    correlations: of all checkpoints of a dataset and of its runs' stage 2, by measure: {"spearman", "checkpoints"}.
    per_landmark: median over the checkpoints of the correlation of equivariance error and backward NME over the landmarks.
    """
    started = time.monotonic()
    rows = [row for name in runs for row in _of_run(Run.open(name), progress)]
    found, over_landmarks = correlations(rows)
    return {
        "checkpoints": [{k: v for k, v in row.items() if k not in _OF_LANDMARKS} for row in rows],
        "correlations": found,
        "per_landmark": over_landmarks,
        "seconds": time.monotonic() - started,
    }


def correlations(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, float | None]]:
    """`correlations` and `per_landmark` of `bench`: of each dataset's checkpoints, and of those that are stage 2."""
    groups = defaultdict(list)
    for row in rows:
        groups[f"{row['dataset']}, all"].append(row)
        if row["stage"] == STAGE2:
            groups[f"{row['dataset']}, stage 2"].append(row)
    return (
        {name: {m: _correlation(of, m) for m in MEASURES} for name, of in groups.items()},
        {name: _over_landmarks(of) for name, of in groups.items()},
    )


def lines(found: dict[str, Any]) -> list[str]:
    """Both tables as text."""
    names = ("forward_nme", *MEASURES)
    table = [["checkpoint", *names]]
    for row in found["checkpoints"]:
        table.append([f"{row['run']} {row['stage']}", *("-" if row[n] is None else f"{row[n]:.3f}" for n in names)])
    spearman = [["Spearman with forward NME", *MEASURES]]
    for name, of in found["correlations"].items():
        cells = ["-" if of[m]["spearman"] is None else f"{of[m]['spearman']:+.2f}" for m in MEASURES]
        spearman.append([f"{name} ({max(of[m]['checkpoints'] for m in MEASURES)})", *cells])
    return [*align(table), "", *align(spearman)]


_OF_LANDMARKS = ("equivariance_per_landmark", "backward_per_landmark")


def _of_run(run: Run, progress: ProgressCallback) -> list[dict[str, Any]]:
    dataset = Dataset.open(run.config.dataset)
    stages = measurable(run)
    # As `evaluate` calls them, which may have predicted them already.
    scored_as = {"0": WARMUP, str(run.config.stage1.rounds): STAGE1}
    with session(run.config.compute):
        progress(0.0, f"{run.folder}: {len(stages)} checkpoints")
        measured = {stage: measure_quality(run, stage) for stage in stages}
        named = [scored_as.get(stage, stage) for stage in stages]
        scores = stage_scores(run, named) if dataset.has_landmarks and stages else {}
    rows = []
    for stage, name in zip(stages, named, strict=True):
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
    found = []
    for row in rows:
        pairs = zip(row["equivariance_per_landmark"], row["backward_per_landmark"] or (), strict=False)
        found.append(_spearman([pair for pair in pairs if None not in pair])["spearman"])
    numbers = [value for value in found if value is not None]
    return float(np.median(numbers)) if numbers else None


def _spearman(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Rank correlation; None of too few pairs, or where one side is constant."""
    values = np.array(pairs, np.float64).reshape(-1, 2)
    told = len(values) >= _LEAST and (np.ptp(values, axis=0) > 0).all()
    return {"spearman": float(spearmanr(*values.T).statistic) if told else None, "checkpoints": len(values)}
