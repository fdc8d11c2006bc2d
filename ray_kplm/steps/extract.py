"""Extraction of keypoints and descriptors with the frozen network, part by part (docs/method.md 3, step 1).

The threshold is calibrated first, once: workers measure the parts of a small sample, which are kept on storage for a run that
continues, and the driver gives the threshold to the workers that extract. The projection of frozen descriptors is fitted on the
keypoints of the same sample.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.config_names import detection_as_recorded
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.dense_features import feature_options
from ray_kplm.methods import build_method
from ray_kplm.methods.extractor import calibrated_threshold
from ray_kplm.methods.frozen_descriptors import PROJECTION, fit_projection, write_projection
from ray_kplm.methods.labels import Labels, keypoint_labels
from ray_kplm.parts import Pool, Workers
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import Step, round_path
from ray_kplm.runtime.map_parts import RayWorkers
from ray_kplm.steps.extract_part import CALIBRATION, FROZEN, SCORES, CalibratePart, Extraction, ExtractPart
from ray_kplm.steps.facing import FindFacing, decided
from ray_kplm.steps.task import FORWARD_COST, RoundLabels, Task

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor


@dataclass(frozen=True, eq=False)
class _Extract(Task):
    """Extraction with the frozen network of a round, from the images of the next."""

    round: int
    network: Task
    known: Task | None = None
    """Labels whose points are described beside the detected ones."""
    facing: FindFacing | None = None

    @property
    def step(self) -> Step:
        inputs = {"network": self.network.fingerprint}
        if self.known is not None:
            inputs["known"] = self.known.fingerprint
        if self.facing is not None:
            inputs["facing"] = self.facing.fingerprint
        return self.context.run.step(self.path, "extract", self._reads(), inputs)

    def _reads(self) -> dict[str, Any]:
        config = self.context.config
        return {
            **self.context.common_reads(),
            "landmarks": config.method.landmarks,
            "detection": detection_as_recorded(asdict(config.detection)),
            **self.context.drawn_reads(self.round + 1),
        }

    def _run(self, executor: Executor, *, described: bool) -> None:
        context, detection = self.context, self.context.config.detection
        executor.begin(self, f"{context.round_title(self.round)}: extracting keypoints")
        selection = context.selection(self.round + 1)
        extraction = Extraction(
            build_method(decided(context.run.resolved, self.facing)),
            self.round,
            self.network.folder,
            context.images,
            calibration_sample(selection, context.config),
            detection.points_per_landmark if self.round else detection.warmup_points_per_landmark,
            self.folder,
            None if self.known is None else self.known.folder,
            None if self.facing is None else self.facing.facings(),
            described=described,
            frozen_share=self.context.method.frozen_share(self.round) if described else 0.0,
            beside=self.folder.parent,
        )
        facts = extract(extraction, selection, executor.progress.advance)
        executor.progress.set_points_per_image(facts["detected_per_image"])
        metrics = {name: facts[name] for name in ("threshold", "detected_per_image", "mean_peak")}
        executor.finish(self, facts, metrics, context.round_end(self.round), f"threshold {facts['threshold']:.4f}")


class ExtractFeatures(_Extract):
    """Keypoints with descriptors, plain and of the mirror image (thesis Algorithm 2, line 9)."""

    is_transient = True  # descriptors are large

    @property
    def path(self) -> str:
        return f"{round_path(self.round)}/features"

    @property
    def cost(self) -> float:
        return self.context.image_count(self.round + 1) * FORWARD_COST * 2

    def _reads(self) -> dict[str, Any]:
        share = self.context.method.frozen_share(self.round)
        frozen = {"frozen": {**feature_options(self.context.config), "share": share}} if share else {}
        return {**super()._reads(), **frozen}

    def run(self, executor: Executor) -> None:
        if not self.folder.exists():  # a projection can be that of the run that this one was forked from
            self.folder.parent.delete_file(PROJECTION)
        self._run(executor, described=True)


class ExtractKeypoints(_Extract, RoundLabels):
    """Keypoints without descriptors, which the next round trains on (thesis 4.2.3)."""

    @property
    def path(self) -> str:
        return f"{round_path(self.round)}/labels"

    def _reads(self) -> dict[str, Any]:
        return {**super()._reads(), "distil_from": self.context.config.template.distil_from}

    @property
    def cost(self) -> float:
        return self.context.image_count(self.round + 1) * FORWARD_COST / 2

    @property
    def completes_round(self) -> int:
        return self.round

    def run(self, executor: Executor) -> None:
        self._run(executor, described=False)

    def round_labels(self, parts: list[str]) -> Labels:
        """Return labels by which a keypoint corresponds to itself in another view."""
        return keypoint_labels(self.folder.read_tables(parts, ["xy"]))


def extract(
    extraction: Extraction,
    selection: Selection,
    progress: ProgressCallback = ignore_progress,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Write the features of the selected images. Return the threshold that was used and what was found.

    workers: where the parts are worked on; by default tasks or actors of Ray Data.
    """
    place, compute = workers or RayWorkers(), extraction.config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    measured = extraction.sample.images if _is_calibrated(extraction) else 0
    share = measured / max(measured + 2 * selection.images, 1)  # a sample is not seen in the mirror
    calibrated = calibrate(extraction, place, pool, part_of(progress, 0.0, share))
    answers = place.map(ExtractPart, {"extraction": calibrated}, selection, pool, part_of(progress, share, 1.0))
    (extraction.features / CALIBRATION).delete()
    images = sum(int(answer["images"]) for answer in answers)
    keypoints = sum(int(answer["keypoints"]) for answer in answers)
    return {
        "threshold": calibrated.threshold,
        "images": images,
        "detected_per_image": keypoints / max(images, 1),
        "mean_peak": float(np.average([a["mean_peak"] for a in answers], weights=[a["images"] for a in answers])),
    }


def calibration_sample(selection: Selection, config: Config) -> Selection:
    """Return the images on which the threshold is chosen: of few parts, and the same whatever does the work."""
    return selection.sample(config.detection.calibration_images, (config.seed, 29), SAMPLE_PARTS)


def _is_calibrated(extraction: Extraction) -> bool:
    return extraction.config.detection.threshold == "calibrated"


def calibrate(
    extraction: Extraction, workers: Workers, pool: Pool, progress: ProgressCallback = ignore_progress
) -> Extraction:
    """Return the extraction with its threshold. Where frozen descriptors are blended, their projection is written too.

    Raises:
        CollapseError: Frozen descriptors are blended, and the sample has no keypoints.
    """
    options, sample = extraction.config.detection, extraction.sample
    threshold = options.fixed_threshold
    if _is_calibrated(extraction):
        scores = _measured(SCORES, extraction, workers, pool, progress)
        wanted = extraction.points_per_landmark * extraction.config.method.landmarks
        threshold = calibrated_threshold(scores[:, 0], sample.images, wanted)
    found = replace(extraction, threshold=threshold)
    folder = extraction.projection_folder
    if extraction.frozen_share and not folder.is_file(PROJECTION):
        projection = fit_projection(_measured(FROZEN, found, workers, pool, progress))
        write_projection(folder, projection, extraction.frozen_share)
    return found


def _measured(
    what: str, extraction: Extraction, workers: Workers, pool: Pool, progress: ProgressCallback
) -> NDArray[np.float32]:
    """Return what is measured on the images of the sample, float32 (n, d), part by part."""
    sample, kept = extraction.sample, extraction.features / CALIBRATION / what
    missing = [i for i, part in enumerate(sample.parts) if not kept.is_whole(part)]
    parts = Selection([sample.parts[i] for i in missing], [sample.rows[i] for i in missing])
    workers.map(CalibratePart, {"extraction": extraction, "what": what}, parts, pool, progress)
    columns = [table["value"].combine_chunks() for table in kept.read_tables(sample.parts)]
    return np.concatenate([c.flatten().to_numpy().reshape(-1, c.type.list_size) for c in columns])
