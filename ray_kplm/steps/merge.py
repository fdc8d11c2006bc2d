"""Merging of the channels of a landmark detector that follow one point, over all training images (docs/method.md 5)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.merging import CoActivation, co_activation, merge
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging import coordinates
from ray_kplm.methods.channels import CHANNELS, Channels, keep_channels
from ray_kplm.methods.inputs import read_inputs, worker_placement
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import NONE
from ray_kplm.steps.task import FORWARD_COST, Task
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor
    from ray_kplm.steps.train_landmarks import TrainLandmarks


@dataclass(frozen=True, eq=False)
class MergeChannels(Task):
    """The detector of a phase with the channels that follow one point merged (thesis 5.2.2)."""

    phase: int
    detector: TrainLandmarks

    @property
    def path(self) -> str:
        return f"stage2/{self.phase:03d}/merge"

    @property
    def step(self) -> Step:
        reads = {**self.context.common_reads(), "merging": asdict(self.context.config.merging)}
        return self.context.run.step(self.path, "merge", reads, {"network": self.detector.fingerprint})

    @property
    def cost(self) -> float:
        return self.context.image_count(self.context.stage2) * FORWARD_COST

    def channels(self) -> Channels:
        """Return the channels that are left."""
        return Channels.read(self.folder)

    def run(self, executor: Executor) -> None:
        context, channels = self.context, self.detector.channels()
        executor.begin(self, f"stage 2: merging {len(channels)} channels")
        named = channels.landmark_to_channel != NONE
        counts = self.detector.labels.label_counts()
        sizes = np.bincount(channels.landmark_to_channel[named], counts[named], len(channels))
        merging = Merging(context.run.resolved, self.detector.folder, context.images, channels)
        selection = context.selection(context.stage2)
        left, facts = merge_channels(merging, self.folder, sizes, selection, executor.progress.advance)
        iteration = context.phase_start(self.phase + 1)
        executor.finish(self, facts, {"channels": len(left)}, iteration, f"{len(left)} left")


@dataclass(frozen=True)
class Merging:
    """All that a counting worker needs: the network of a phase, whose channels are compared."""

    config: Config
    network: Folder
    images: Folder
    channels: Channels


def merge_channels(
    merging: Merging,
    target: Folder,
    sizes: NDArray[np.int64],
    selection: Selection,
    progress: ProgressCallback = ignore_progress,
) -> tuple[Channels, dict[str, Any]]:
    """Write the network with the remaining channels. Return these channels, and facts for the manifest.

    Args:
        merging: what to compare.
        target: where the network and `channels.json` are written.
        sizes: (C,) number of labels of each channel; the larger of two stays.
        selection: the images to look at.
        progress: called as parts are done.

    Raises:
        CollapseError: all channels merged into one.
    """
    config = merging.config
    compute, options = config.compute, config.merging
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    answers = map_parts(_CountPart, {"merging": merging}, selection, pool, progress)
    found = reduce(add, (CoActivation(int(a["images"]), a["fires"], a["together"]) for a in answers))
    into, history = merge(found, sizes, options.overlap)
    left, stay = merging.channels.merged(into, history)
    if len(left) < 2:
        raise CollapseError(
            f"all {len(merging.channels)} channels merged into {len(left)}: they fire at one place; look at merging.overlap = "
            f"{options.overlap}, merging.distance = {options.distance} and stage2.learning_rate"
        )
    target.write_bytes(NETWORK, keep_channels(merging.network.read_bytes(NETWORK), stay))
    target.write_json(CHANNELS, left.to_dict())
    facts = {
        "channels_before": len(into),
        "channels": len(left),
        "merged": [vars(m) for m in left.history[len(merging.channels.history) :]],
        "fires": found.fires.tolist(),
        "images": found.images,
    }
    return left, facts


class _CountPart:
    """A worker that counts in a part how often each channel fires, and each pair of channels at one place."""

    def __init__(self, merging: Merging) -> None:
        make = LandmarkPredictorFactory(merging.config, merging.network, merging.channels.flip_map, flip=False)
        self._merging, self._predictor = merging, make(worker_placement(merging.config.compute))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        options = self._merging.config.merging
        counts = []
        for images, *_ in read_inputs(self._merging.images, part, rows, self._merging.config):
            xy, confidence, *_ = self._predictor(images)
            cells = coordinates.input_to_heatmap(xy)
            counts.append(co_activation(cells, confidence, least=options.confidence, distance=options.distance))
        total = reduce(add, counts)
        return {"images": total.images, "fires": total.fires, "together": total.together}
