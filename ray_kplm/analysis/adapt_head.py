"""Points with a network of their own: a new head on the frozen backbone of a run, trained on labelled images.

It is the form in which the thesis reuses its network, and pays with about a hundred labels or more; with fewer the map from the
landmarks (`points.regressor`) is better and takes no time. docs/points.md has the measurement.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.detectors.stored import facing_rule, write_detector
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.inputs import worker_placement
from ray_kplm.methods.predicted import Predictor
from ray_kplm.methods.predictors import LandmarkPredictor, OneWayPredictor
from ray_kplm.methods.supervised import AnnotatedInputs, HeadObjective, train_supervised
from ray_kplm.methods.trainer import NETWORK, Learner
from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import check_point_set_name, point_folder, write_point_set
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Run, fingerprint
from ray_kplm.schemas import NONE
from ray_kplm.storage import Folder

HEAD_FROM_LABELS = 100
"""Labelled images from which on a head is worth trying."""
HEAD_ITERATIONS = 600
"""Iterations of a head's training."""
_SHOWN_EVERY = 10


def fit_head(
    run: Run,
    name: str,
    layout: Layout,
    images: NDArray[np.uint8],
    xy: NDArray[np.floating[Any]],
    boxes: NDArray[np.floating[Any]] | None = None,
    *,
    iterations: int = HEAD_ITERATIONS,
    seed: int = 0,
    progress: ProgressCallback = ignore_progress,
) -> Folder:
    """Train a head on labelled images, and store it with the run as its points `name`.

    The points have no probabilities: `visibility` was fitted for the run's landmarks.

    Args:
        run: A finished run.
        name: Of the set of points; one that exists is replaced.
        layout: Names, mirror partners and skeleton of the L points.
        images: uint8 (N, S, S, 3), inputs of the network (`image_io.network_input`).
        xy: (N, L, 2), the points in these inputs, pixels; NaN where not labelled.
        boxes: (N, 4), of the objects in these inputs, pixels; NaN where unknown.
        iterations: Of the training.
        seed: Of the training.
        progress: Called as the training goes on.

    Returns:
        The folder, which `detectors.stored.landmark_predictor(run, name)` reads.

    Raises:
        ConfigError: The name cannot be one.
        RunError: The run is not finished.
        DataError: No image has a point.
    """
    check_point_set_name(name)
    data = head_inputs(run, images, xy, head_flip_map(layout), boxes)
    learner = train_head(run, data, iterations=iterations, seed=seed, progress=progress)
    folder = point_folder(run.folder, name)
    folder.delete()
    write_point_set(folder, PointSet.of_groups(layout, [[point] for point in range(len(layout))], len(layout)))
    buffer = io.BytesIO()
    torch.save({"network": learner.network.state_dict()}, buffer)
    channels = Channels.first(np.ones(len(layout), bool), data.flip_map)
    made_from = {"labels": fingerprint("labels", {"xy": np.asarray(xy, np.float64).tolist()}, {})}
    made_from["network"] = str(run.finished("stage2")["fingerprint"])
    made = fingerprint("head", {"iterations": iterations, "seed": seed}, made_from)
    write_detector(run, folder, buffer.getvalue(), channels, None, made)
    return folder


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
) -> AnnotatedInputs:
    """Return labelled inputs as a head of a run is trained on them: if its objects face one way, turned that way."""
    points = np.asarray(xy, np.float32)
    around = np.full((len(images), 4), np.nan, np.float32) if boxes is None else np.asarray(boxes, np.float32)
    rule = facing_rule(run)
    mirrored = None if rule is None else rule(images, around, points) < 0
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
    rule, config = facing_rule(run), run.resolved
    flip = config.stage2.flip_at_test and rule is None
    predictor = LandmarkPredictor(config, learner.network.state_dict(), flip_map, learner.placement, flip=flip)
    return predictor if rule is None else OneWayPredictor(predictor, rule)
