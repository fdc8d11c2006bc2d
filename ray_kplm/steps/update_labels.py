"""Labels for the next detector: what a landmark detector finds in the training images (thesis Algorithm 1, line 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.errors import CollapseError
from ray_kplm.imaging import coordinates
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.inputs import read_inputs, worker_placement
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import LABELS, NONE
from ray_kplm.steps.task import FORWARD_COST, LandmarkLabels, metrics_of
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor
    from ray_kplm.steps.train_landmarks import TrainLandmarks


@dataclass(frozen=True, eq=False)
class UpdateLabels(LandmarkLabels):
    """Labels for the next phase: what the detector of a phase finds in the training images."""

    phase: int
    detector: TrainLandmarks

    @property
    def path(self) -> str:
        return f"stage2/{self.phase:03d}/labels"

    @property
    def step(self) -> Step:
        reads = {**self.context.common_reads(), "confidence": self.context.config.template.confidence}
        return self.context.run.step(self.path, "relabel", reads, {"network": self.detector.fingerprint})

    @property
    def cost(self) -> float:
        return self.context.image_count(self.context.stage2) * FORWARD_COST

    def run(self, executor: Executor) -> None:
        context = self.context
        executor.begin(self, "stage 2: labels for the next detector")
        channels = self.detector.channels()
        work = LabelUpdate(context.run.resolved, self.detector.folder, context.images, channels, self.folder)
        facts = update_labels(work, context.selection(context.stage2), executor.progress.advance)
        executor.progress.set_points_per_image(facts["points_per_image"])
        executor.finish(self, facts, metrics_of(facts), context.phase_start(self.phase + 1))


@dataclass(frozen=True)
class LabelUpdate:
    """All that a labelling worker needs."""

    config: Config
    network: Folder
    images: Folder
    channels: Channels
    labels: Folder


def update_labels(
    work: LabelUpdate, selection: Selection, progress: ProgressCallback = ignore_progress
) -> dict[str, Any]:
    """Write the labels of all selected images. Return facts for the manifest.

    Raises:
        CollapseError: too few landmarks are found.
    """
    compute = work.config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    parts = map_parts(_LabelPart, {"work": work}, selection, pool, progress)
    images = sum(int(p["images"]) for p in parts)
    counts = np.sum([p["counts"] for p in parts], axis=0)
    points = float(counts.sum() / max(images, 1))
    least = work.config.limits.min_points_per_image
    if points < least:
        raise CollapseError(
            f"{points:.2f} landmarks an image are found with template.confidence = {work.config.template.confidence} or more, "
            f"fewer than limits.min_points_per_image = {least}; lower it, or train longer (stage2.iterations)"
        )
    return {"images": images, "points_per_image": points, "label_counts": counts.tolist()}


class _LabelPart:
    def __init__(self, work: LabelUpdate) -> None:
        make = LandmarkPredictorFactory(work.config, work.network, work.channels.flip_map, flip=False)
        self._work, self._predictor = work, make(worker_placement(work.config.compute))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        least = self._work.config.template.confidence
        ids, points, scores = [], [], []
        for images, crop_to_input, names, _ in read_inputs(self._work.images, part, rows, self._work.config):
            xy, confidence, *_ = self._predictor(images)
            points += [coordinates.apply(coordinates.invert(a), p) for a, p in zip(crop_to_input, xy, strict=True)]
            scores.append(confidence)
            ids += names
        score = np.concatenate(scores)
        sure = score >= least
        image, landmark = np.nonzero(sure)
        counts, landmark = sure.sum(axis=1), landmark.astype(np.int16)
        columns = [
            pa.array(ids, pa.string()),
            ragged_points(np.stack(points)[image, landmark], counts),
            ragged(score[image, landmark].astype(np.float32), counts),
            ragged(landmark, counts),
            ragged(landmark, counts),
            ragged(np.full_like(landmark, NONE), counts),
        ]
        self._work.labels.write_table(part, pa.Table.from_arrays(columns, schema=LABELS))
        return {"images": len(ids), "counts": sure.sum(axis=0)}
