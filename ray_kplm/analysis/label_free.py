"""Label-free quality of a finished detector, measured on a sample of the training images: `kplm quality`."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.analysis.predictions import predictor
from ray_kplm.analysis.recordings import rounds_have_landmarks
from ray_kplm.config import AugmentConfig, Config
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.evaluation.label_free import Observations, measure
from ray_kplm.evaluation.label_free_warnings import warnings_of
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Augmenter
from ray_kplm.imaging.warp import displace
from ray_kplm.methods.inputs import read_inputs, worker_placement
from ray_kplm.methods.predictors import LandmarkPredictorFactory, PredictorFactory
from ray_kplm.network.heatmaps import DECODER_VERSION
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Run, Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.storage import Folder

IMAGES = 256
"""Number of training images on which the quality is measured."""
_VIEWS = 3
"""Number of known views of each image."""
_MOTION = AugmentConfig(
    scale=(0.85, 1.15), translate=0.05, rotate=20.0, warp=0.04,
    brightness=(1, 1), contrast=(1, 1), colour_share=0.0, blur_share=0.0, noise_share=0.0,
)  # fmt: skip
"""Transforms of the views. They do not depend on the run's configuration, so that runs are comparable, and keep the colours."""
_SAMPLE = 23
"""Second number of the sample's seed."""


def measure_quality(
    run: Run, stage: str = STAGE2, *, images: int = IMAGES, progress: ProgressCallback = ignore_progress
) -> dict[str, Any]:
    """Measure the landmark detector of a finished run, or the network and clusters of a finished round.

    The result is kept in `<run>/evaluation/quality.json`, that of a round in `quality_003.json` there. The observations are
    kept in `evaluation/quality/`, from which a second call measures. Ray must be initialised.

    Args:
        run: The run.
        stage: `STAGE2`, or the number of a round, of which 0 is the warm-up.
        images: Number of training images to measure on.
        progress: Called as the work goes on.

    Returns:
        The measures of `evaluation.label_free.measure`, with `stage` and `warnings`.

    Raises:
        RunError: The stage is not finished or has no landmarks.
        ConfigError: `images` is not positive, or `stage` is invalid.
    """
    if images < 1:
        raise ConfigError(f"images = {images}: must be at least 1; {IMAGES} give stable numbers")
    dataset = Dataset.open(run.config.dataset)
    make, partners, source = _detector(run, stage)
    name = STAGE2 if stage == STAGE2 else f"{int(stage):03d}"
    reads = {
        "images": images,
        "views": _VIEWS,
        "motion": asdict(_MOTION),
        "seed": run.config.seed,
        "flip_at_test": run.config.stage2.flip_at_test,
        "decoder": DECODER_VERSION,
    }
    inputs = {"network": source["fingerprint"], "dataset": dataset.fingerprint}
    step = run.step(f"evaluation/quality/{name}", "quality", reads, inputs)
    whole = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    sample = whole.sample(images, (run.config.seed, _SAMPLE))
    if not step.is_current():
        progress(0.0, f"{sample.images} images, {_VIEWS} views of each, and their mirror images, by {_title(stage)}")
        _observe(run.resolved, make, dataset.images(TRAIN), step, sample, progress)
    seen = _observations(step.folder, sample, run.config.network.image_size, partners, always=stage == STAGE2)
    quality = {"stage": stage, **measure(seen)}
    quality["warnings"] = warnings_of(quality)
    file = "quality.json" if stage == STAGE2 else f"quality_{name}.json"
    (run.folder / "evaluation").write_json(file, quality)
    return quality


def measurable(run: Run) -> list[str]:
    """Return the stages of a run that can be measured: numbers of finished rounds, and stage 2 if it is finished."""
    rounds = run.rounds() if rounds_have_landmarks(run) else []
    return [str(number) for number in rounds] + ([STAGE2] if run.manifest("stage2") else [])


def _title(stage: str) -> str:
    if stage == STAGE2:
        return "stage 2"
    return f"round {int(stage)}" if int(stage) else "the warm-up"


def _detector(run: Run, stage: str) -> tuple[PredictorFactory, NDArray[np.int16], dict[str, Any]]:
    """Return a stage's predictor, its flip map (K,), and the manifest of the step that trained it."""
    if stage != STAGE2 and not stage.isdecimal():
        raise ConfigError(
            f"stage = {stage!r}: must be {STAGE2} or the number of a round; finished are "
            f"{', '.join(measurable(run)) or 'none yet'}"
        )
    if stage != STAGE2 and not rounds_have_landmarks(run):
        raise RunError(
            f"{run.folder}: the rounds of method.kind = {run.config.method.kind!r} have keypoints but no landmarks; measure "
            f"stage = {STAGE2}"
        )
    make, source = predictor(run, stage)
    if isinstance(make, LandmarkPredictorFactory):
        return make, make.flip_map, source
    clusters = read_clusters(run.folder / "rounds" / f"{int(stage):03d}")
    landmarks = len(source["label_counts"])
    return make, clusters.get("flip_map", np.full(landmarks, NONE, np.int16)), source


@dataclass(frozen=True)
class _Work:
    """All that a worker needs.

    Attributes:
        config: The run's configuration.
        make: The detector.
        alone: The detector without averaging over the mirror image, for which image and mirror image would agree.
        images: The images' folder.
        target: Folder of the observations.
    """

    config: Config
    make: PredictorFactory
    alone: PredictorFactory
    images: Folder
    target: Folder


def _observe(
    config: Config, make: PredictorFactory, images: Folder, step: Step, sample: Selection, progress: ProgressCallback
) -> None:
    step.begin()
    alone = replace(make, flip=False) if isinstance(make, LandmarkPredictorFactory) else make
    compute = config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    map_parts(_ObservePart, {"work": _Work(config, make, alone, images, step.folder)}, sample, pool, progress)
    step.finish(images=sample.images)


class _ObservePart:
    """Worker that holds the detector and writes its observations of a part's images."""

    def __init__(self, work: _Work) -> None:
        placement = worker_placement(work.config.compute)
        self._work, self._side = work, work.config.network.image_size
        self._detector = work.make(placement)
        self._alone = self._detector if work.alone is work.make else work.alone(placement)
        self._augmenter = Augmenter(_MOTION, self._side)

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        work = self._work
        if not work.target.is_file(part):
            batches = read_inputs(work.images, part, rows, work.config)
            work.target.write_table(part, pa.concat_tables([self._table(batch.images, batch.ids) for batch in batches]))
        return {"images": len(rows)}

    def _table(self, images: NDArray[np.uint8], ids: list[str]) -> pa.Table:
        seen = self._detector.observe(images)
        views = [self._view(images, ids, number, seen.xy) for number in range(_VIEWS)]
        expected, found, confidence = (np.concatenate(column, axis=1) for column in zip(*views, strict=True))
        alone, _ = self._alone(images)
        mirrored, _ = self._alone(np.ascontiguousarray(images[:, :, ::-1]))
        turned = coordinates.mirrored(mirrored, self._side)
        values = (*seen, expected, found, confidence, alone, turned)
        columns = [ids, *([None] * len(ids) if v is None else v.astype(np.float32).tolist() for v in values)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schemas.OBSERVATIONS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schemas.OBSERVATIONS)

    def _view(
        self, images: NDArray[np.uint8], ids: list[str], number: int, xy: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating], NDArray[np.float32], NDArray[np.float32]]:
        """Observe view `number` of each of B images.

        Returns:
            The positions (B, K, 2) of the images' landmarks `xy` in the view, NaN where it does not show them, and the
            landmarks (B, K, 2) and confidences (B, K) detected in the view.
        """
        seeds = [zlib.crc32(f"{number}:{name}".encode()) & 0x7FFFFFFF for name in ids]
        views = [self._augmenter(image, seed, flip=False) for image, seed in zip(images, seeds, strict=True)]
        placed = np.stack(
            [coordinates.apply(view.crop_to_view.astype(np.float64), p) for view, p in zip(views, xy, strict=True)]
        )
        known = np.isfinite(placed).all(axis=-1, keepdims=True)
        moved = displace(np.where(known, placed, 0), np.stack([view.shifts for view in views]), self._side)
        inside = ((moved >= 0) & (moved <= self._side - 1)).all(axis=-1, keepdims=True)
        found, confidence = self._detector(np.stack([view.picture for view in views]))
        return np.where(known & inside, moved, np.nan), found, confidence


def _observations(
    folder: Folder, sample: Selection, side: int, partners: NDArray[np.int16], *, always: bool
) -> Observations:
    table = pa.concat_tables(folder.read_tables(sample.parts))

    def column(name: str) -> NDArray[np.float64]:
        return np.array(table[name].to_pylist(), np.float64)

    def by_view(name: str) -> NDArray[np.float64]:
        values = column(name)
        return values.reshape(len(values), -1, len(partners), *values.shape[2:])

    return Observations(
        side=side,
        xy=column("xy"),
        confidence=column("confidence"),
        sharpness=column("sharpness"),
        separation=None if table["separation"].null_count else column("separation"),
        expected=by_view("expected"),
        found=by_view("found"),
        view_confidence=by_view("view_confidence"),
        alone=column("alone"),
        mirrored=column("mirrored"),
        partners=partners,
        always=always,
    )
