"""Training of a landmark network on annotated images, in this process: the loss and the views of stage 2, without Ray."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_kplm.config import Config, NetworkConfig
from ray_kplm.errors import CollapseError, DataError
from ray_kplm.imaging.augment import Augmenter, Boxed
from ray_kplm.imaging.view_parameters import draw_views
from ray_kplm.methods.batch import Views
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.sampling import Plan, single_plan
from ray_kplm.methods.trainer import Learner, Schedule
from ray_kplm.network.compute import Placement
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.schemas import NONE

_SUPERVISED = 6
"""Of the seeds of trainings."""
OnIteration = Callable[[int, float, Learner], object]
"""Called after an iteration with the number of iterations done, the loss, and the learner."""


@dataclass(frozen=True, eq=False)
class AnnotatedInputs:
    """N inputs of the network with L annotated points each.

    Attributes:
        images: uint8 (N, S, S, 3).
        xy: float32 (N, L, 2), input frame; NaN where not annotated.
        flip_map: int16 (L,), the partner of each point in the mirror image, itself if it stays; NONE if it is unknown. Without
            any partner, no mirror images are shown.
        boxes: float32 (N, 4), x0, y0, x1, y1 of the objects, pixels; NaN where unknown.
        mirrored: bool (N,), images that are shown as their mirror image, in which points keep their identity, as where a
            detector turns all objects to face one way; None: mirror images are augmentation.
    """

    images: NDArray[np.uint8]
    xy: NDArray[np.float32]
    flip_map: NDArray[np.int16]
    boxes: NDArray[np.float32]
    mirrored: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, rows: NDArray[np.int64]) -> AnnotatedInputs:
        """Return some of the images."""
        mirrored = None if self.mirrored is None else self.mirrored[rows]
        return AnnotatedInputs(self.images[rows], self.xy[rows], self.flip_map, self.boxes[rows], mirrored)

    def labels(self) -> Labels:
        """Return the points as labels: point l trains channel l."""
        present: NDArray[np.bool_] = np.asarray(np.isfinite(self.xy).all(axis=-1))
        channel = np.arange(self.xy.shape[1])
        partner = channel if self.mirrored is not None else self.flip_map
        xy = np.where(present[:, :, None], self.xy, 0).astype(np.float32)
        identity, flipped = (np.where(present, of, NONE).astype(np.int32) for of in (channel, partner))
        return Labels(xy, identity, flipped, present)

    def boxed(self, index: int, other: int) -> Boxed | None:
        """Return the box of an image, with another image and its box; None without both boxes."""
        box, other_box = self.boxes[index].astype(np.float64), self.boxes[other].astype(np.float64)
        if not (np.isfinite(box).all() and np.isfinite(other_box).all()):
            return None
        return Boxed(box, self.images[other], other_box)


class _FrozenBackbone(LandmarkNetwork):
    """A landmark network of which only the head is trained; batch norms of the backbone keep their statistics."""

    def __init__(self, config: NetworkConfig, landmarks: int) -> None:
        super().__init__(config, landmarks)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> _FrozenBackbone:
        """Set the mode of the head."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Map images (0 to 1) to heatmaps BLhw."""
        with torch.no_grad():
            features = self.backbone(image_B3SS)
        heatmaps: Tensor = self.landmarks(features)
        return heatmaps

    def start_from(self, stage1: dict[str, Tensor]) -> None:
        """Load a landmark network's weights except for those of its last layer, whose channels are others."""
        kept = {name: value for name, value in stage1.items() if not name.startswith("landmarks.output.")}
        missing, unexpected = self.load_state_dict(kept, strict=False)
        assert not unexpected, unexpected
        assert all(name.startswith("landmarks.output.") for name in missing), missing


@dataclass(frozen=True)
class HeadObjective(LandmarkObjective):
    """The loss of stage 2 for a new head on the frozen backbone of a trained detector (thesis 2.6 and 5.2 reuse it so)."""

    def network(self) -> LandmarkNetwork:
        """Return a network with random weights, of which the head alone is trained."""
        return _FrozenBackbone(self.config.network, self.channels)

    def parameter_groups(self, network: nn.Module) -> list[dict[str, object]]:
        """Return the group of the head."""
        return super().parameter_groups(network)[1:]


def train_supervised(
    data: AnnotatedInputs,
    objective: LandmarkObjective,
    placement: Placement,
    *,
    iterations: int,
    seed: int,
    start: bytes | None = None,
    done: int = 0,
    on_iteration: OnIteration = lambda done, loss, learner: None,
) -> Learner:
    """Train a network on annotated images, with the augmentation, batch and schedule of stage 2.

    Views are made by one thread beside the training. The same arguments give the same weights.

    Args:
        data: Images with points. Images without any point are not shown.
        objective: What is minimised; it holds the run's configuration.
        placement: Device and number format.
        iterations: Of the training. Learning rates fall at the shares of them that `stage2.decay_at` says.
        seed: Decides initial weights and views.
        start: A stored state of a landmark network to start from (`Learner.start_from`); by default random weights. With
            `done`, the state of this training (`Learner.state`).
        done: Iterations that an earlier call did. The result is the same as of one call.
        on_iteration: Called after each iteration.

    Returns:
        The trained learner.

    Raises:
        DataError: No image has a point.
        CollapseError: The loss is not finite.
    """
    config, labels = objective.config, data.labels()
    usable = labels.usable(1)
    if not len(usable):
        raise DataError(f"{len(data)} images without any annotated point: there is nothing to train on")
    with_partners = bool((data.flip_map != NONE).any())
    plan = single_plan(
        usable,
        iterations=iterations,
        batch=config.stage2.batch_size,
        flip=with_partners if data.mirrored is None else data.mirrored,
        seed=(seed, _SUPERVISED),
    )
    schedule = Schedule(0, iterations, config.stage2.decay_at)
    learner = Learner(objective, labels, schedule, placement, (seed, _SUPERVISED))
    if start is not None:
        learner.restore(start) if done else learner.start_from(start)
    for iteration, views in enumerate(_views(plan, data, config, done), start=done):
        loss = float(learner.step(iteration, views)["loss"])
        if not math.isfinite(loss):
            raise CollapseError(
                f"the loss is {loss} at iteration {iteration + 1}: it must stay finite; lower stage2.learning_rate"
            )
        on_iteration(iteration + 1, loss, learner)
    return learner


def _views(plan: Plan, data: AnnotatedInputs, config: Config, first: int) -> Iterator[Views]:
    """Yield the batches of a plan from an iteration on; the next one is made while the last one is used."""
    make = Augmenter(config.augment, config.network.image_size)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(_batch, make, plan, data, first)
        for iteration in range(first, plan.iterations):
            batch = following.result()
            if iteration + 1 < plan.iterations:
                following = pool.submit(_batch, make, plan, data, iteration + 1)
            yield batch


def _batch(make: Augmenter, plan: Plan, data: AnnotatedInputs, iteration: int) -> Views:
    rows = slice(iteration * plan.views, (iteration + 1) * plan.views)
    image, seed, flip = plan.image[rows], plan.seed[rows], plan.flip[rows]
    other = plan.image[seed % len(plan.image)]
    parameters = draw_views(make.config, seed, flip)
    boxed = (
        data.boxed(i, o) if paste else None
        for i, o, paste in zip(image.tolist(), other.tolist(), parameters.paste.tolist(), strict=True)
    )
    views = make.views(parameters, data.images[image], boxed=boxed)
    return Views(views.picture, image.astype(np.int64), flip, views.crop_to_view, views.shifts)
