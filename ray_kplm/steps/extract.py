"""Extraction of keypoints and descriptors with the frozen network, part by part (docs/method.md 3, step 1).

The threshold is calibrated by the workers that extract. Each part of a small sample is done by the worker that comes to it
first, and its peaks are kept on storage for the other workers and for a run that continues. The projection of frozen
descriptors is fitted on the keypoints of the same sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.config_names import detection_as_recorded
from ray_kplm.correspondence.features import features_table, keypoints_table
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.dense_features import build_features, feature_options
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.methods import build_method
from ray_kplm.methods.base import Method
from ray_kplm.methods.extractor import Detected, calibrated_threshold
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.frozen_descriptors import PROJECTION, FrozenDescriptors, describe_detected, fit_projection
from ray_kplm.methods.inputs import Inputs, read_inputs, worker_placement
from ray_kplm.methods.labels import Labels, keypoint_labels
from ray_kplm.methods.trainer import read_weights
from ray_kplm.parts import Pool, Workers
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Step, round_path
from ray_kplm.runtime.map_parts import RayWorkers
from ray_kplm.steps.facing import FindFacing, decided
from ray_kplm.steps.task import FORWARD_COST, RoundLabels, Task
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_CALIBRATION = "calibration"
"""Folder of what is measured on the sample, below that of the features while they are made."""
_NOWHERE = np.zeros((0, 2), np.float32)


@dataclass(frozen=True, eq=False)
class _Extract(Task):
    """Extraction with the frozen network of a round, from the images of the next."""

    round: int
    network: Task
    known: Task | None = None
    """Labels whose points are described beside the detected ones."""
    facing: FindFacing | None = None

    works_in_workers = True

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
        facts = extract(extraction, selection, executor.progress.advance, executor.place(self))
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


@dataclass(frozen=True)
class Extraction:
    """All that an extraction worker needs.

    sample: the images on which the threshold is calibrated, to `points_per_landmark` points for each landmark. known: labels
    whose points are described beside the detected ones. facings: which way images face, where mirror images are `facing`; the
    network then sees all as they face one way. described: whether `features` hold descriptors. frozen_share: of the descriptors
    of the configured `features`, which are blended with the learnt ones; 0: nothing is blended. beside: where the projection of
    these is; by default the folder around that of the network.
    """

    method: Method
    round_number: int
    network: Folder
    images: Folder
    sample: Selection
    points_per_landmark: float
    features: Folder
    known: Folder | None = None
    facings: Facings | None = None
    described: bool = True
    frozen_share: float = 0.0
    beside: Folder | None = None

    @property
    def config(self) -> Config:
        return self.method.config


def extract(
    extraction: Extraction,
    selection: Selection,
    progress: ProgressCallback = ignore_progress,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Write the features of the selected images. Return the threshold that was used and what was found.

    workers: where the parts are worked on; by default tasks or actors of Ray Data.
    """
    compute = extraction.config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    answers = (workers or RayWorkers()).map(ExtractPart, {"extraction": extraction}, selection, pool, progress)
    (extraction.features / _CALIBRATION).delete()
    images = sum(int(answer["images"]) for answer in answers)
    keypoints = sum(int(answer["keypoints"]) for answer in answers)
    return {
        "threshold": float(answers[0]["threshold"]),
        "images": images,
        "detected_per_image": keypoints / max(images, 1),
        "mean_peak": float(np.average([a["mean_peak"] for a in answers], weights=[a["images"] for a in answers])),
    }


def calibration_sample(selection: Selection, config: Config) -> Selection:
    """Return the images on which the threshold is chosen: of few parts, and the same whatever does the work."""
    return selection.sample(config.detection.calibration_images, (config.seed, 29), SAMPLE_PARTS)


class ExtractPart:
    """A worker with the network. All workers find the same threshold, from the peaks of one sample that they share."""

    def __init__(self, extraction: Extraction) -> None:
        self._work = extraction
        placement = worker_placement(extraction.config.compute)
        weights = read_weights(extraction.network)
        self._extractor = extraction.method.extractor(weights, placement, extraction.round_number)
        self._threshold = self._calibrate()
        self._frozen = self._frozen_descriptors(placement.device) if extraction.frozen_share else None

    def _calibrate(self) -> float:
        config = self._work.config
        options = config.detection
        if options.threshold == "fixed":
            return options.fixed_threshold
        wanted = self._work.points_per_landmark * config.method.landmarks
        boxed = config.detection.inside_box
        scores = self._measure_sample(
            "scores", lambda batch: self._extractor.scores(batch.images, batch.boxes if boxed else None)[:, None]
        )
        return calibrated_threshold(scores[:, 0], self._work.sample.images, wanted)

    def _frozen_descriptors(self, device: torch.device) -> FrozenDescriptors:
        """Return the frozen model with the projection of all processes, which the first one that has the sample writes."""
        features = build_features(self._work.config, device)
        folder = self._work.beside or self._work.network.parent

        def describe(batch: Inputs) -> NDArray[np.float32]:
            return np.concatenate(describe_detected(features, batch.images, self._find(batch)))

        if not folder.is_file(PROJECTION):
            projection = fit_projection(self._measure_sample("frozen", describe))
            if not folder.is_file(PROJECTION):
                FrozenDescriptors(features, projection, self._work.frozen_share).write(folder)
        return FrozenDescriptors.read(folder, features)

    def _measure_sample(self, name: str, measure: Callable[[Inputs], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what `measure` gives for batches of the sample, float32 (n, d), part by part.

        A process does not wait for a part that another one has begun, since that one may have died. In the worst case the part
        is done twice.
        """
        sample, shared = self._work.sample, self._work.features / _CALIBRATION / name
        for i in np.random.default_rng().permutation(len(sample.parts)):  # so that processes meet at the end only
            part = sample.parts[i]
            if not shared.is_whole(part):
                values = np.concatenate([measure(batch) for batch in self._read(part, sample.rows[i])])
                rows = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
                shared.write_table(part, pa.table({"value": rows}))
        columns = [table["value"].combine_chunks() for table in shared.read_tables(sample.parts)]
        return np.concatenate([c.flatten().to_numpy().reshape(-1, c.type.list_size) for c in columns])

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, float]:
        found, ids, peaks = [], [], []
        known = self._known(part)
        for batch in self._read(part, rows):
            detected = self._find(batch, known)
            if self._frozen is not None:
                detected = self._frozen.beside(detected, batch.images)
            found += [
                keypoints.in_crop(coordinates.invert(affine))
                for keypoints, affine in zip(detected, batch.crop_to_input, strict=True)
            ]
            peaks += [float(k.score.max(initial=0)) for k in detected]
            ids += batch.ids
        counts = np.array([len(k.xy) for k in found], np.int64)
        joined = [np.concatenate([getattr(k, name) for k in found]) for name in
                  ("xy", "score", "descriptors", "descriptors_flipped")]  # fmt: skip
        if self._work.described:
            sizes = crop_sizes(self._work.images.read_table(part, ["width", "height"]).take(rows))
            table = features_table(ids, sizes, counts, *joined)
        else:
            table = keypoints_table(ids, counts, *joined[:2])
        self._work.features.write_table(part, table)
        return {
            "images": len(ids),
            "keypoints": int(counts.sum()),
            "threshold": self._threshold,
            "mean_peak": float(np.mean(peaks)),
        }

    def _find(self, batch: Inputs, known: dict[str, NDArray[np.float32]] | None = None) -> list[Detected]:
        """Return the keypoints of each image, with the known points of the images that have some."""
        extra = None
        if known is not None:
            extra = [
                coordinates.apply(affine, known.get(image, _NOWHERE))
                for image, affine in zip(batch.ids, batch.crop_to_input, strict=True)
            ]
        detected = self._extractor.find(batch.images, self._threshold, extra)
        if self._work.config.detection.inside_box:
            detected = [keypoints.inside(box) for keypoints, box in zip(detected, batch.boxes, strict=True)]
        return detected

    def _read(self, part: str, rows: NDArray[np.int64]) -> Iterator[Inputs]:
        """Yield batches as `read_inputs` does, of images as they face one way."""
        for batch in read_inputs(self._work.images, part, rows, self._work.config):
            facings = self._work.facings
            yield batch if facings is None else batch.mirrored(facings.of(part, batch.ids) < 0)

    def _known(self, part: str) -> dict[str, NDArray[np.float32]] | None:
        """Points of the last labels in the crop frame, by image; not all images need have some."""
        folder = self._work.known
        if folder is None or not folder.is_file(part):
            return None if folder is None else {}
        table = folder.read_table(part, ["image_id", "xy"])
        points = (np.asarray(xy, np.float32).reshape(-1, 2) for xy in table["xy"].to_pylist())
        return dict(zip(table["image_id"].to_pylist(), points, strict=True))
