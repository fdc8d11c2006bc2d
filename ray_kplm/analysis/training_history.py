"""How a run went, read from what its steps left: numbers of each round, and what was merged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.evaluation.label_stability import dense, label_stability
from ray_kplm.run import Run, round_path
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.storage import Folder

_IMAGES = 2000
"""Images whose labels are compared, at most."""
_LOSSES = ("loss", "detector", "descriptor")


def rounds(run: Run, dataset: Dataset) -> list[dict[str, Any]]:
    """A dict for each round, 0 being the warm-up: points an image, losses, objectives a descriptor, agreement with the last."""
    numbers = run.rounds()
    last = _labels(run, dataset, numbers[-1]) if numbers else None
    found = []
    for number in numbers:
        labels = run.manifest(f"{round_path(number)}/labels") or {}
        training = run.manifest(f"{round_path(number)}/train") or {}
        facts: dict[str, Any] = {"round": number}
        facts["points_per_image"] = labels.get("points_per_image", labels.get("detected_per_image"))
        facts["training_points_per_image"] = labels.get("training_points_per_image")
        facts |= {name: (training.get("metrics") or {}).get(name) for name in _LOSSES}
        measured = f"quality_{number:03d}.json"
        if (run.folder / "evaluation").is_file(measured):
            facts["equivariance_error"] = (run.folder / "evaluation").read_json(measured).get("equivariance_error")
        facts |= _objectives(labels, run.config.clustering.fit_points)
        if last is not None and number != numbers[-1]:
            facts |= _agreement(run, dataset, number, last)
        found.append(facts)
    return found


def _objectives(labels: dict[str, Any], most: int) -> dict[str, float]:
    """Mean squared distance of the descriptors, plain and of the mirror image, to their centroids, of both clusterings."""
    clustered = {"landmark_objective": "detected_per_image", "cluster_objective": "points_per_image"}
    found = {}
    for name, count in clustered.items():
        if name in labels and labels.get(count):
            found[name] = labels[name] / min(2 * labels[count] * labels["images"], most)
    return found


class _Labels:
    """Points of some images by label: rows of an image by its name, and dense places (N, L, 2) with longer sides (N,)."""

    def __init__(self, parts: list[str], rows: dict[str, int], xy: NDArray, sides: NDArray) -> None:
        self.parts, self.rows, self.xy, self.sides = parts, rows, xy, sides


def _labels(run: Run, dataset: Dataset, number: int, parts: list[str] | None = None) -> _Labels | None:
    """Of the round's first parts, or of the given ones as far as it has them; None: it has no named points."""
    folder = run.folder / "rounds" / f"{number:03d}" / "labels"
    there = folder.parts()
    rows: dict[str, int] = {}
    image, label, xy, sides = [], [], [], []
    taken = []
    for part in there if parts is None else [p for p in parts if p in there]:
        if parts is None and len(rows) >= _IMAGES:
            break
        taken.append(part)
        table = folder.read_table(part)
        if "landmark" not in table.column_names:
            return None
        longer = _longer_sides(dataset.images(TRAIN), part)
        for name, points, landmarks in zip(
            *(table[c].to_pylist() for c in ("image_id", "xy", "landmark")), strict=True
        ):
            named = [(k, p) for k, p in zip(landmarks, points, strict=True) if k != NONE]
            image += [len(rows)] * len(named)
            label += [k for k, _ in named]
            xy += [p for _, p in named]
            sides.append(longer[name])
            rows[name] = len(rows)
    if not label:
        return None
    places = dense(len(rows), max(label) + 1, np.array(image), np.array(label), np.array(xy, np.float32))
    return _Labels(taken, rows, places, np.array(sides, np.float32))


def _longer_sides(images: Folder, part: str) -> dict[str, int]:
    table = images.read_table(part, ["image_id", "width", "height"])
    longer = np.maximum(table["width"].to_numpy(), table["height"].to_numpy())
    return dict(zip(table["image_id"].to_pylist(), longer.tolist(), strict=True))


def _agreement(run: Run, dataset: Dataset, number: int, last: _Labels) -> dict[str, float | None]:
    """With the last round, percent, on the images that both labelled; nothing where they have none in common."""
    own = _labels(run, dataset, number, last.parts)
    common = [] if own is None else [name for name in last.rows if name in own.rows]
    if own is None or not common:
        return {}
    mine, theirs = ([labels.rows[name] for name in common] for labels in (own, last))
    stability, again = label_stability(own.xy[mine], last.xy[theirs], last.sides[theirs])
    return {"stability": stability, "found_again": again}


def merges(run: Run) -> list[dict[str, Any]]:
    """Of chapter 5's mergings in order: channels before and after, and what went into what."""
    found = []
    for name in (run.folder / "stage2").folders():
        facts = run.manifest(f"stage2/{name}/merge")
        if facts:
            found.append({"before": facts["channels_before"], "after": facts["channels"], "merged": facts["merged"]})
    return found
