"""Training history of a run, read from its manifests and labels: numbers of each round, and merged channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.evaluation.label_stability import dense, label_stability
from ray_kplm.run import Run, round_path
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.storage import Folder

_IMAGES = 2000
"""Approximate number of images whose labels are compared."""
_LOSSES = ("loss", "detector", "descriptor")


def rounds(run: Run, dataset: Dataset) -> list[dict[str, Any]]:
    """Return a dictionary of numbers for each finished round, of which 0 is the warm-up.

    The numbers are points per image, losses, mean squared distances to the centroids, and the agreement with the last round
    (`evaluation.label_stability`); a number that is unknown is None or missing.
    """
    numbers = run.rounds()
    last = _labels(run, dataset, numbers[-1]) if numbers else None
    history = []
    for number in numbers:
        labels = run.manifest(f"{round_path(number)}/labels") or {}
        training = run.manifest(f"{round_path(number)}/train") or {}
        facts: dict[str, Any] = {"round": number}
        facts["points_per_image"] = labels.get("points_per_image", labels.get("detected_per_image"))
        facts["training_points_per_image"] = labels.get("training_points_per_image")
        facts |= {name: (training.get("metrics") or {}).get(name) for name in _LOSSES}
        measured = f"quality_{number:03d}.json"
        if (run.folder / "evaluation").is_file(measured):
            facts["equivariance_error"] = (run.folder / "evaluation").read_object(measured).get("equivariance_error")
        facts |= _objectives(labels, run.config.clustering.fit_points)
        if last is not None and number != numbers[-1]:
            facts |= _agreement(run, dataset, number, last)
        history.append(facts)
    return history


def _objectives(labels: dict[str, Any], fit_points: int) -> dict[str, float]:
    """Return the mean squared distance of the descriptors to their centroids, for the K and the M clusters.

    The manifest holds sums over the descriptors of images and mirror images, at most `fit_points` of them.
    """
    clustered = {"landmark_objective": "detected_per_image", "cluster_objective": "points_per_image"}
    means = {}
    for name, count in clustered.items():
        if name in labels and labels.get(count):
            means[name] = labels[name] / min(2 * labels[count] * labels["images"], fit_points)
    return means


@dataclass(frozen=True)
class _Labels:
    """Labelled points of N images.

    Attributes:
        parts: The parts that hold the images.
        rows: Name of an image -> its row.
        xy: (N, L, 2), the point of each label in crop pixels, NaN for none.
        sides: (N,), longer sides of the images, crop pixels.
    """

    parts: list[str]
    rows: dict[str, int]
    xy: NDArray[np.float32]
    sides: NDArray[np.float32]


def _labels(run: Run, dataset: Dataset, number: int, parts: list[str] | None = None) -> _Labels | None:
    """Read the labelled points of a round.

    Args:
        run: The run.
        dataset: The run's dataset.
        number: Number of the round.
        parts: The parts to read, as far as the round has them; None for the first parts, up to about `_IMAGES` images.

    Returns:
        The points, or None if the round has none with a label.
    """
    folder = run.unit(f"{round_path(number)}/labels")
    stored = folder.parts()
    rows: dict[str, int] = {}
    image, label, xy, sides = [], [], [], []
    parts_read = []
    for part in stored if parts is None else [p for p in parts if p in stored]:
        if parts is None and len(rows) >= _IMAGES:
            break
        parts_read.append(part)
        table = folder.read_table(part)
        if "landmark" not in table.column_names:
            return None
        longer = _longer_sides(dataset.images(TRAIN), part)
        for name, points, landmarks in zip(
            *(table[c].to_pylist() for c in ("image_id", "xy", "landmark")), strict=True
        ):
            labelled = [(k, p) for k, p in zip(landmarks, points, strict=True) if k != NONE]
            image += [len(rows)] * len(labelled)
            label += [k for k, _ in labelled]
            xy += [p for _, p in labelled]
            sides.append(longer[name])
            rows[name] = len(rows)
    if not label:
        return None
    by_label = dense(len(rows), max(label) + 1, np.array(image), np.array(label), np.array(xy, np.float32))
    return _Labels(parts_read, rows, by_label, np.array(sides, np.float32))


def _longer_sides(images: Folder, part: str) -> dict[str, int]:
    table = images.read_table(part, ["image_id", "width", "height"])
    longer = np.maximum(table["width"].to_numpy(), table["height"].to_numpy())
    return dict(zip(table["image_id"].to_pylist(), longer.tolist(), strict=True))


def _agreement(run: Run, dataset: Dataset, number: int, last: _Labels) -> dict[str, float | None]:
    """Return the agreement with the last round in percent on the images that both labelled; empty without any."""
    own = _labels(run, dataset, number, last.parts)
    common = [] if own is None else [name for name in last.rows if name in own.rows]
    if own is None or not common:
        return {}
    own_rows, last_rows = ([labels.rows[name] for name in common] for labels in (own, last))
    stability, again = label_stability(own.xy[own_rows], last.xy[last_rows], last.sides[last_rows])
    return {"stability": stability, "found_again": again}


def merges(run: Run) -> list[dict[str, Any]]:
    """Return the merging steps of a run (thesis chapter 5) in order.

    Returns:
        For each step the number of channels `before` and `after`, and `merged`, the pairs of channels.
    """
    steps = []
    for name in (run.folder / "stage2").folders():
        facts = run.manifest(f"stage2/{name}/merge")
        if facts:
            steps.append({"before": facts["channels_before"], "after": facts["channels"], "merged": facts["merged"]})
    return steps
