"""The probability of a landmark being there, fitted without annotation on a sample of training images (docs/method.md 4).

What is measured on the images as they are and with synthetic occluders is small; the fit (`methods.visibility_fit`) is the
driver's.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS
from ray_kplm.imaging.occlusion import occlude
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.inputs import Inputs, read_inputs, worker_placement
from ray_kplm.methods.predictors import LandmarkPredictor
from ray_kplm.methods.trainer import read_weights
from ray_kplm.methods.visibility import VISIBILITY, VISIBILITY_STEP
from ray_kplm.methods.visibility_fit import Sample, fit
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.steps.facing import FindFacing
from ray_kplm.steps.task import FORWARD_COST, Task
from ray_kplm.steps.train_landmarks import ExportJointHead, TrainLandmarks
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_SAMPLE = 43
"""Of the seed of the sample."""


@dataclass(frozen=True, eq=False)
class CalibrateVisibility(Task):
    """The model that gives the landmarks of the detector their probabilities of being there."""

    detector: TrainLandmarks | ExportJointHead
    facing: FindFacing | None = None

    essential = (VISIBILITY,)

    @property
    def path(self) -> str:
        return VISIBILITY_STEP

    @property
    def step(self) -> Step:
        config = self.context.config
        reads = {
            **self.context.common_reads(),
            "visibility": asdict(config.visibility),
            "flip_at_test": config.stage2.flip_at_test,
        }
        inputs = {"network": self.detector.fingerprint}
        if self.facing is not None:
            inputs["facing"] = self.facing.fingerprint
        return self.context.run.step(self.path, "visibility", reads, inputs)

    @property
    def cost(self) -> float:
        config = self.context.config
        return 4 * min(config.visibility.images, self.context.image_count(self.context.stage2)) * FORWARD_COST

    def run(self, executor: Executor) -> None:
        context, config = self.context, self.context.config
        executor.begin(self, "visibility of the landmarks")
        sample = context.selection(context.stage2).sample(
            config.visibility.images, (config.seed, _SAMPLE), SAMPLE_PARTS
        )
        work = VisibilityWork(
            context.run.resolved,
            self.detector.folder,
            context.images,
            None if self.facing is None else self.facing.facings(),
        )
        compute = config.compute
        pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
        answers = map_parts(MeasurePart, {"work": work}, sample, pool, executor.progress.advance)
        pieces = [_unpacked(answer) for answer in sorted(answers, key=lambda answer: answer["part"])]
        measured = Sample.join(pieces)
        self.folder.write_json(VISIBILITY, fit(measured).to_dict())
        facts = {"images": measured.images, "hidden": int(measured.hidden.sum())}
        iteration = context.phase_start(context.method.num_phases - 1)
        executor.finish(self, facts, {}, iteration, f"fitted on {measured.images} images")


@dataclass(frozen=True)
class VisibilityWork:
    """All that a measuring worker needs.

    Attributes:
        config: The run's configuration.
        network: Folder of the detector.
        images: The training images.
        facings: Which way the images face, if mirror images face the other way.
    """

    config: Config
    network: Folder
    images: Folder
    facings: Facings | None


class MeasurePart:
    """Worker that measures the landmarks of images, and of the same images with occluders."""

    def __init__(self, work: VisibilityWork) -> None:
        """Build the detector."""
        self._work, partners = work, Channels.read(work.network).flip_map
        flip = work.config.stage2.flip_at_test and work.facings is None
        placement = worker_placement(work.config.compute)
        self._detector = LandmarkPredictor(work.config, read_weights(work.network), partners, placement, flip=flip)

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return the `Sample` of rows of a part, its arrays as bytes with their shapes."""
        batches = read_inputs(self._work.images, part, rows, self._work.config)
        sample = Sample.join([self._measure(part, batch) for batch in batches])
        return {"part": part} | {
            name: {"shape": list(value.shape), "type": value.dtype.str, "bytes": value.tobytes()}
            for name, value in vars(sample).items()
        }

    def _measure(self, part: str, batch: Inputs) -> Sample:
        if self._work.facings is not None:
            batch = batch.mirrored(self._work.facings.of(part, batch.ids) < 0)
        xy, features = self._detector.measure(batch.images)
        others = np.roll(batch.images, 1, axis=0)
        seeds = [[self._work.config.seed, zlib.crc32(name.encode())] for name in batch.ids]
        covered = [
            occlude(image, other, points, np.random.default_rng(seed))
            for image, other, points, seed in zip(batch.images, others, xy, seeds, strict=True)
        ]
        _, occluded = self._detector.measure(np.stack([c.picture for c in covered]))
        return Sample(
            features,
            occluded,
            np.stack([c.hidden for c in covered]),
            np.stack([c.clear for c in covered]),
        )


def _unpacked(answer: dict[str, Any]) -> Sample:
    """Return the sample in what a worker returned."""
    arrays = {
        name: np.frombuffer(value["bytes"], value["type"]).reshape(value["shape"])
        for name, value in answer.items()
        if name != "part"
    }
    return Sample(**arrays)
