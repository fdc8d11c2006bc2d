"""Points with a network of their own: a new head on the frozen backbone of a run, trained on labelled images.

It is the form in which the thesis reuses its network, and pays with about a hundred labels or more; with fewer the map from the
landmarks (`points.regressor`) is better and takes no time. docs/points.md has the measurement.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.analysis.label_views import LabelledViews
from ray_kplm.detectors.stored import facing_rule, write_detector
from ray_kplm.errors import DataError
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.methods.facing import FACING
from ray_kplm.methods.inputs import worker_placement
from ray_kplm.methods.predicted import Predictor
from ray_kplm.methods.predictors import LandmarkPredictor, OneWayPredictor
from ray_kplm.methods.supervised import AnnotatedInputs, HeadObjective, train_supervised
from ray_kplm.methods.trainer import NETWORK, Learner
from ray_kplm.points.fit import PointFit, distances, object_sizes
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import CONFIG, MANIFEST, Run, fingerprint
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

HEAD_FROM_LABELS = 100
"""Labelled images from which on a head is worth trying."""
HEAD_ITERATIONS = 600
"""Iterations of a head's training."""
_SHOWN_EVERY = 10
_HELD_OUT, _LEAST_GROUPS = 0.2, 10
"""Share of the groups of labelled images that a head is judged by, and how many groups that needs."""


def write_head(run: Run, folder: Folder, layout: Layout, learner: Learner, made_from: Mapping[str, Any]) -> None:
    """Write a trained head as a set of points of a run, which `detectors.stored.landmark_predictor(run, name)` reads.

    The points have no probabilities: `visibility` was fitted for the run's landmarks.

    Args:
        run: The run.
        folder: Of the set (`points.stored.point_folder`). A network that it has is replaced.
        layout: Names, mirror partners and skeleton of the L points.
        learner: The head.
        made_from: What it was trained on, and how, which tells it from others.

    Raises:
        RunError: The run is not finished.
    """
    own = run.finished("stage2")["fingerprint"]
    remove_head(folder)
    buffer = io.BytesIO()
    torch.save({"network": learner.network.state_dict()}, buffer)
    channels = Channels.first(np.ones(len(layout), bool), head_flip_map(layout))
    made = fingerprint("head", made_from, {"network": str(own)})
    points = PointSet.of_groups(layout, [[point] for point in range(len(layout))], len(layout))
    write_detector(run, folder, buffer.getvalue(), channels, None, made, points)


def remove_head(folder: Folder) -> None:
    """Remove the network of a set of points, if it has one: the set is then a map from the landmarks again.

    What says that there is a network goes first.
    """
    for name in (CHANNELS, MANIFEST, NETWORK, CONFIG):
        if folder.is_file(name):
            folder.delete_file(name)
    (folder / FACING).delete()


def head_flip_map(layout: Layout) -> NDArray[np.int16]:
    """Return the partners of a layout's points in the mirror image; NONE for all if no two points change places.

    A layout that nobody gave partners says that each point is its own, which is wrong for a point on one side: then mirror
    images are not used.
    """
    partners = np.asarray(layout.partners, np.int16)
    return partners if layout.symmetries else np.full(len(layout), NONE, np.int16)


def head_inputs(
    run: Run,
    images: NDArray[np.uint8],
    xy: NDArray[np.floating[Any]],
    flip_map: NDArray[np.int16],
    boxes: NDArray[np.floating[Any]] | None = None,
    *,
    are_turned: bool = False,
) -> AnnotatedInputs:
    """Return labelled inputs as a head of a run is trained on them: if its objects face one way, turned that way.

    Args:
        run: The run.
        images: uint8 (N, S, S, 3), inputs of the network (`image_io.network_input`).
        xy: (N, L, 2), the points in these inputs, pixels; NaN where not labelled.
        flip_map: (L,) partners of the points, see `head_flip_map`.
        boxes: (N, 4), of the objects in these inputs, pixels; NaN where unknown.
        are_turned: Whether images and points are turned already.
    """
    points = np.asarray(xy, np.float32)
    around = np.full((len(images), 4), np.nan, np.float32) if boxes is None else np.asarray(boxes, np.float32)
    rule, mirrored = facing_rule(run), None
    if rule is not None:
        mirrored = np.zeros(len(images), bool) if are_turned else rule(images, around, points) < 0
    return AnnotatedInputs(images, points, np.asarray(flip_map, np.int16), around, mirrored)


def train_head(
    run: Run,
    data: AnnotatedInputs,
    *,
    iterations: int = HEAD_ITERATIONS,
    seed: int = 0,
    progress: ProgressCallback = ignore_progress,
) -> Learner:
    """Train a head of L channels on the frozen backbone of a run's landmark detector; its features start from the old head's.

    Raises:
        RunError: The run is not finished.
        DataError: No image has a point.
    """
    run.finished("stage2")
    stage2, config = run.unit("stage2"), run.resolved

    def show(done: int, loss: float, learner: Learner) -> None:
        if done % _SHOWN_EVERY == 0 or done == iterations:
            text = f"head of {data.xy.shape[1]} points · iteration {done}/{iterations} · loss {loss:.4f}"
            progress(done / iterations, text)

    with stage2.parsing(NETWORK):
        state = stage2.read_bytes(NETWORK)
    objective, placement = HeadObjective(config, data.xy.shape[1]), worker_placement(config.compute)
    return train_supervised(
        data, objective, placement, iterations=iterations, seed=seed, start=state, on_iteration=show
    )


def head_predictor(run: Run, learner: Learner, flip_map: NDArray[np.int16]) -> Predictor:
    """Return the predictor of a head that was just trained, as `landmark_predictor` returns it of a stored one."""
    rule, predictor = facing_rule(run), turned_predictor(run, learner, flip_map)
    return predictor if rule is None else OneWayPredictor(predictor, rule)


def turned_predictor(run: Run, learner: Learner, flip_map: NDArray[np.int16]) -> Predictor:
    """Return the same for images that are turned already, if the run's objects face one way."""
    config = run.resolved
    flip = config.stage2.flip_at_test and facing_rule(run) is None
    return LandmarkPredictor(config, learner.network.state_dict(), flip_map, learner.placement, flip=flip)


@dataclass(frozen=True, eq=False)
class HeadTrial:
    """A head on held-out labels, beside the map from the landmarks.

    Attributes:
        images: Labelled objects that were held out.
        error: Mean error of the head on them, a share of the object's size.
        map_error: That of the map, cross-validated.
        gain_error: Standard error of the difference, over groups of images.
    """

    images: int
    error: float
    map_error: float
    gain_error: float

    @property
    def is_better(self) -> bool:
        """Whether the head is better by more than the standard error."""
        return self.map_error - self.error > self.gain_error


def try_head(
    run: Run,
    seen: LabelledViews,
    fit: PointFit,
    layout: Layout,
    *,
    iterations: int = HEAD_ITERATIONS,
    seed: int = 0,
    progress: ProgressCallback = ignore_progress,
) -> tuple[HeadTrial, Learner | None]:
    """Compare a head with the map from the landmarks on held-out groups of labels; if it is better, train it on all labels.

    Args:
        run: A finished run.
        seen: All labels, with the views of all of them.
        fit: The map that was fitted on them.
        layout: Of the points.
        iterations: Of each of the two trainings.
        seed: Of the choice of the groups, and of the trainings.
        progress: Called as the trainings go on.

    Raises:
        DataError: There are too few groups of labelled images to hold some out.
    """
    groups = int(seen.groups.max()) + 1
    if groups < _LEAST_GROUPS:
        raise DataError(f"--head: needs {_LEAST_GROUPS} labelled images that differ, and {groups} do; leave it out")
    held_out = np.random.default_rng(seed).permutation(groups)[: max(1, round(groups * _HELD_OUT))]
    is_out = np.isin(seen.groups, held_out)
    images, side = np.stack(seen.views), seen.views[0].shape[0]
    data = head_inputs(run, images, seen.targets * side, head_flip_map(layout), are_turned=True)
    options = {"iterations": iterations, "seed": seed}
    rest = data.chosen(np.flatnonzero(~is_out))
    learner = train_head(run, rest, **options, progress=part_of(progress, 0.0, 0.5))
    found = turned_predictor(run, learner, data.flip_map)(images[is_out]).xy.astype(np.float64) / side
    errors = distances(found, seen.targets[is_out], object_sizes(seen.xy)[is_out])
    by_group = [
        [float(np.nanmean(of[seen.groups[is_out] == group])) for of in (errors, fit.errors[is_out])]
        for group in held_out
        if np.isfinite(errors[seen.groups[is_out] == group]).any()
    ]
    own, other = np.array(by_group).reshape(-1, 2).T
    spread = float((other - own).std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else np.inf
    trial = HeadTrial(int(is_out.sum()), float(own.mean()), float(other.mean()), spread)
    if not trial.is_better:
        return trial, None
    return trial, train_head(run, data, **options, progress=part_of(progress, 0.5, 1.0))
