"""`kplm ablate`: score all combinations of a few values, beside the thesis' figures."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.config import Config, from_dict, with_overrides
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError
from ray_kplm.experiments.trial import absolute, discover_with_reuse
from ray_kplm.locking import lock_folder
from ray_kplm.locking.fence import Patrol, end_process
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.figures import errors_over
from ray_kplm.report.text_table import align
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.runtime.trial_actor import Report, Values
from ray_kplm.runtime.tune import Search, run_trials
from ray_kplm.steps.choose import LANDMARKS, resolve
from ray_kplm.storage import Folder, Guard
from ray_kplm.tracking import ParentRun, add_evaluation, check_environment, track_group


@dataclass(frozen=True)
class Axis:
    """A path of the configuration that varies, with the thesis' values."""

    path: str
    values: tuple[Any, ...]


AXES = {
    "kind": Axis("method.kind", ("kplm", "merge", "template")),
    "stages": Axis("stage2.training", ("separate", "joint")),
    "negatives": Axis("stage1.negatives", ("same_image", "different_cluster")),
    "correspondence": Axis("stage1.correspondence", ("clustering", "equivariance")),
    "clusters": Axis("method.clusters", (30, 50, 100, 250, 500)),
    "keypoints": Axis("keypoints.detector", ("sift", "orb", "r2d2", "superpoint")),
    "mirror": Axis("method.mirror", ("none", "partners")),
    "flip_at_test": Axis("stage2.flip_at_test", (False, True)),
    "norm": Axis("network.norm", ("group", "batch")),
    "noise": Axis("keypoints.truth_share", (0.0, 0.2, 0.4, 0.6, 1.0)),
    "warp": Axis("augment.warp", (0.0, 0.06)),
}
"""Names for `--over`. Any other path of the configuration can be given with its values: method.landmarks=10,20."""

CURVE = "curve.png"
_RUN = "run"
"""What Tune searches: the name of the run."""
_REQUIRED = {"noise": ["keypoints.detector=noisy_gt"]}


@dataclass(frozen=True)
class Figure:
    """A result of the thesis: forward and backward NME in percent (None: not given), and the table that has it."""

    forward: float
    backward: float | None
    source: str


_LS3D, _CELEBA = "LS3D, K = 30, stage 1, Table", "CelebA, K = 30, stage 1, Table"
THESIS: dict[frozenset[tuple[str, Any]], Figure] = {
    frozenset({("negatives", "different_cluster"), ("correspondence", "clustering")}): Figure(
        11.15, None, f"{_LS3D} 6.3"
    ),
    frozenset({("negatives", "same_image"), ("correspondence", "equivariance")}): Figure(10.02, None, f"{_LS3D} 6.3"),
    frozenset({("negatives", "different_cluster"), ("correspondence", "equivariance")}): Figure(
        9.56, None, f"{_LS3D} 6.3"
    ),
    frozenset({("negatives", "same_image"), ("correspondence", "clustering")}): Figure(7.95, None, f"{_LS3D} 6.3"),
    frozenset({("clusters", 30)}): Figure(10.26, 9.41, f"{_LS3D} 6.1"),
    frozenset({("clusters", 50)}): Figure(7.99, 6.99, f"{_LS3D} 6.1"),
    frozenset({("clusters", 100)}): Figure(7.95, 6.55, f"{_LS3D} 6.1"),
    frozenset({("clusters", 250)}): Figure(8.58, 6.26, f"{_LS3D} 6.1"),
    frozenset({("clusters", 500)}): Figure(9.53, 6.19, f"{_LS3D} 6.1"),
    frozenset({("keypoints", "sift")}): Figure(4.07, 7.79, f"{_CELEBA} 6.2"),
    frozenset({("keypoints", "orb")}): Figure(3.85, 7.70, f"{_CELEBA} 6.2"),
    frozenset({("keypoints", "r2d2")}): Figure(3.71, 7.97, f"{_CELEBA} 6.2"),
    frozenset({("keypoints", "superpoint")}): Figure(3.25, 6.65, f"{_CELEBA} 6.2"),
    frozenset({("mirror", "none"), ("flip_at_test", False)}): Figure(5.81, None, "LS3D, K = 30, stage 2, Table 6.5"),
    frozenset({("mirror", "partners"), ("flip_at_test", False)}): Figure(
        5.45, None, "LS3D, K = 30, stage 2, Table 6.5"
    ),
    frozenset({("mirror", "partners"), ("flip_at_test", True)}): Figure(5.26, None, "LS3D, K = 30, stage 2, Table 6.5"),
}
"""By the values of the axes that a table varies."""


def grid(over: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return all combinations: values by axis name or path, and the seed.

    Args:
        over: Names of AXES, or path=value,value.
        seeds: Each combination is run with each of them.

    Raises:
        ConfigError: A name is neither.
    """
    choices: dict[str, tuple[Any, ...]] = {}
    for name in over:
        path, _, values = name.partition("=")
        if values:
            choices[path] = tuple(values.split(","))
        elif path in AXES:
            choices[path] = AXES[path].values
        else:
            raise ConfigError(f"--over {name}: no such axis; known are {', '.join(AXES)}, or path=value,value")
    cells = [dict(zip(choices, cell, strict=True)) for cell in itertools.product(*choices.values())]
    return [{**cell, "seed": seed} for cell in cells for seed in seeds]


def configured(config: Config, cell: Mapping[str, Any]) -> Config:
    """Return the configuration of a combination, in a run directory of its own below the given one."""
    changes = [change for name in cell for change in _REQUIRED.get(name, [])]
    for name, value in cell.items():
        path = AXES[name].path if name in AXES else name
        changes.append(f"{path}={str(value).lower() if isinstance(value, bool) else value}")
    return from_dict(with_overrides(config.to_dict(), [*changes, f"run={config.run}/{run_name(cell)}"]))


def run_name(cell: Mapping[str, Any]) -> str:
    """Return the name of a run and of its folder: `negatives=same_image,seed=0`."""
    return ",".join(f"{name}={value}" for name, value in cell.items())


def ablate(
    config: Config, over: Sequence[str], seeds: Sequence[int], *, max_concurrent: int, progress: ProgressCallback
) -> list[dict[str, Any]]:
    """Run and score every combination.

    Finished runs are not repeated, and a run takes over the finished steps that another one has in common with it.

    Args:
        config: What the runs share; they go below its run directory.
        over: See `grid`.
        seeds: See `grid`.
        max_concurrent: Runs side by side.
        progress: Gets the progress of the runs, with their names.

    Returns:
        A row for each combination: its cell, its figures or its error, and the thesis' figure.
    """
    if not config.run:
        raise ConfigError("run = '': name the folder of all runs, for example run=runs/ablation")
    check_environment()
    cells = grid(over, seeds)
    config = absolute(config)
    configs = {run_name(cell): configured(config, cell) for cell in cells}
    dataset = Dataset.open(config.dataset)
    parameters = {"over": ", ".join(over), "seeds": list(seeds), **config.flat()}
    with (
        lock_folder(Folder.at(config.run)) as lock,
        session(config.compute, max_concurrent),
        track_group(lock.folder, dataset.meta, parameters) as group,
    ):
        scratch = lock.folder / "tune"
        scratch.delete()  # of a process that was killed: finished runs are the state
        if not any(name.partition("=")[0] == LANDMARKS for name in over):
            config = resolve(Run(lock.folder, config), dataset, progress)
            configs = {run_name(cell): configured(config, cell) for cell in cells}
        figures = _Figures()
        run_trials(
            partial(_trial, group.parent, lock.folder.guard, configs), Search({_RUN: ("grid_search", list(configs))}), figures,
            name=lambda number, values: values[_RUN].replace("/", "_"), compute=lambda values: configs[values[_RUN]].compute,
            max_concurrent=max_concurrent, folder=scratch, progress=progress,
        )  # fmt: skip
        scratch.delete()
        rows = [{"cell": cell, **figures.state[run_name(cell)], "thesis": _thesis(cell)} for cell in cells]
        group.log_file("rows.json", json.dumps(plain(rows), indent=1).encode())
        if picture := curve(rows):
            lock.folder.write_bytes(CURVE, picture)
            group.log_file(CURVE, picture)
    return rows


def curve(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Return a PNG of the errors over the axis, or None unless a single axis of numbers varies."""
    names = list(dict.fromkeys(name for row in rows for name in row["cell"] if name != "seed"))
    values = {row["cell"][names[0]] for row in rows} if len(names) == 1 else set()
    if len(values) < 2 or not all(map(_is_number, values)):
        return None
    table = sorted(averaged(rows), key=lambda row: float(row["name"].partition("=")[2]))
    labels = {
        "forward_nme": "forward, stage 2",
        "stage1_forward_nme": "forward, stage 1",
        "backward_nme": "backward, stage 2",
    }
    curves = {label: _series(table, name) for name, label in labels.items()}
    base = next((row["mean_shape_nme"] for row in rows if row.get("mean_shape_nme") is not None), None)
    return errors_over(AXES[names[0]].path if names[0] in AXES else names[0], sorted(map(float, values)), curves, base)


def _series(table: Sequence[Mapping[str, Any]], figure: str) -> tuple[list[float], list[float]]:
    """Return means and deviations, NaN where all runs failed."""
    pairs = [row[figure] or (math.nan, math.nan) for row in table]
    return [mean for mean, _ in pairs], [deviation for _, deviation in pairs]


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return not isinstance(value, bool)


def plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows ready for JSON."""
    return [{**row, "thesis": row["thesis"] and vars(row["thesis"])} for row in rows]


class _Figures:
    """The figures of the runs, by name (`runtime.tune.Events`)."""

    def __init__(self) -> None:
        self.state: dict[str, Mapping[str, Any]] = {}
        self._runs: dict[str, str] = {}

    def began(self) -> None:
        """Do nothing."""

    def started(self, name: str, values: Values) -> None:
        """Note the run of a trial."""
        self._runs[name] = values[_RUN]

    def reported(self, name: str, metrics: Mapping[str, Any]) -> None:
        """Do nothing: runs report at their end."""

    def ended(self, name: str, metrics: Mapping[str, Any] | None, error: str) -> None:
        """Note the figures of a run, or its error."""
        self.state[self._runs[name]] = {"error": error} if error else (metrics or {})["figures"]


def _trial(
    parent: ParentRun,
    guard: Guard | None,
    configs: Mapping[str, Config],
    name: str,
    values: Values,
    progress: ProgressCallback,
    report: Report,
) -> dict[str, Any]:
    config = configs[values[_RUN]]
    below = Folder.at(config.run).parent
    with Patrol(guard, on_loss=end_process):
        run = discover_with_reuse([below / folder for folder in below.folders()], config, progress, parent)
        metrics = evaluate(run, progress)
        add_evaluation(run, metrics)
    names = ("forward_nme", "backward_nme", "stage1_forward_nme", "stage1_backward_nme", "mean_shape_nme", "landmarks",
             "stage1_points_per_image")  # fmt: skip
    return {"figures": {name: metrics.get(name) for name in names}}


def _thesis(cell: Mapping[str, Any]) -> Figure | None:
    """Return the thesis' figure for a combination, of the table that varies just these axes."""
    wanted = frozenset((name, value) for name, value in cell.items() if name != "seed")
    return THESIS.get(wanted)


def averaged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each combination, with the mean and standard deviation over its seeds."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(run_name({k: v for k, v in row["cell"].items() if k != "seed"}), []).append(row)
    out = []
    for name, group in groups.items():
        good = [row for row in group if "error" not in row]
        merged: dict[str, Any] = {"name": name, "seeds": len(good), "thesis": group[0]["thesis"]}
        for figure in ("forward_nme", "backward_nme", "stage1_forward_nme", "stage1_backward_nme"):
            values = [row[figure] for row in good if row.get(figure) is not None]
            merged[figure] = (_mean(values), _deviation(values)) if values else None
        merged["errors"] = [row["error"] for row in group if "error" in row]
        out.append(merged)
    return out


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the errors as a text table: the mean, the deviation over several seeds, the thesis' figure, and the failures."""
    table = averaged(rows)
    cells = [["", "stage 1", "backward", "stage 2", "backward", "thesis"]]
    for row in table:
        figures = [row[name] for name in ("stage1_forward_nme", "stage1_backward_nme", "forward_nme", "backward_nme")]
        thesis = row["thesis"]
        beside = "" if thesis is None else f"{thesis.forward} / {thesis.backward or '-'} ({thesis.source})"
        cells.append([row["name"], *(_shown(figure, row["seeds"]) for figure in figures), beside])
    heading, *lines = align(cells, left=(0, 5))
    failures = [[f"    failed: {error}" for error in row["errors"]] for row in table]
    return [heading, *(text for line, failed in zip(lines, failures, strict=True) for text in (line, *failed))]


def _shown(figure: tuple[float, float] | None, seeds: int) -> str:
    if figure is None:
        return "-"
    return f"{figure[0]:.2f} ± {figure[1]:.2f}" if seeds > 1 else f"{figure[0]:.2f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample, 0 for one value."""
    mean = _mean(values)
    return (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
