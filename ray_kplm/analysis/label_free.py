"""Label-free quality of a finished detector, measured on a sample of the training images: `kplm quality`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.analysis.observe import (
    COMPOSITES_OF,
    MOTION,
    OBSERVATIONS_VERSION,
    VIEWS,
    ObservePart,
    PredictPart,
    PredictWork,
    Work,
    read_observations,
)
from ray_kplm.analysis.predictions import predictor
from ray_kplm.analysis.recordings import rounds_have_landmarks
from ray_kplm.config import Config
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.evaluation.agreement import agreement
from ray_kplm.evaluation.label_free import Observations, measure
from ray_kplm.evaluation.label_free_warnings import warnings_of
from ray_kplm.evaluation.layout_reliance import SHIFT
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.imaging import coordinates
from ray_kplm.methods.predictors import LandmarkPredictorFactory, PredictorFactory
from ray_kplm.network.heatmaps import DECODER_VERSION
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import Run, Step, round_path
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.storage import Folder

IMAGES = 256
"""Number of training images on which the quality is measured."""
_SAMPLE = 23
"""Second number of the sample's seed."""


def measure_quality(
    run: Run,
    stage: str = STAGE2,
    *,
    images: int = IMAGES,
    against: Run | None = None,
    progress: ProgressCallback = ignore_progress,
) -> dict[str, Any]:
    """Measure the landmark detector of a finished run, or the network and clusters of a finished round.

    The result is kept in `<run>/evaluation/quality.json`, that of a round in `quality_003.json` there. The observations are
    kept in `evaluation/quality/`, from which a second call measures. Ray must be initialised.

    Args:
        run: The run.
        stage: `STAGE2`, or the number of a round, of which 0 is the warm-up.
        images: Number of training images to measure on.
        against: Another run, as a second opinion: how well its landmarks and this run's predict each other on the same images.
        progress: Called as the work goes on.

    Returns:
        The measures of `evaluation.label_free.measure`, with `stage`, `against` (`evaluation.agreement`, and the name of the
        other run; None without one) and `warnings`.

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
        "views": VIEWS,
        "motion": asdict(MOTION),
        "composites": {"version": OBSERVATIONS_VERSION, "of": COMPOSITES_OF, "shift": SHIFT},
        "seed": run.config.seed,
        "flip_at_test": run.config.stage2.flip_at_test,
        "decoder": DECODER_VERSION,
    }
    inputs = {"network": source["fingerprint"], "dataset": dataset.fingerprint}
    step = run.step(f"evaluation/quality/{name}", "quality", reads, inputs)
    whole = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    sample = whole.sample(images, (run.config.seed, _SAMPLE))
    if not step.is_current():
        progress(0.0, f"{sample.images} images, {VIEWS} views of each, and their mirror images, by {_title(stage)}")
        _observe(run.resolved, make, dataset.images(TRAIN), step, sample, progress)
    side = run.config.network.image_size
    seen = read_observations(step.folder, list(sample.parts), side, partners, always=stage == STAGE2)
    second = None if against is None else _agreement(run, against, stage, sample, seen, progress)
    quality = {"stage": stage, **measure(seen), "against": second}
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
    clusters = read_clusters(run.unit(f"{round_path(int(stage))}/labels").parent)
    landmarks = len(source["label_counts"])
    return make, clusters.get("flip_map", np.full(landmarks, NONE, np.int16)), source


def _observe(
    config: Config, make: PredictorFactory, images: Folder, step: Step, sample: Selection, progress: ProgressCallback
) -> None:
    step.begin()
    map_parts(ObservePart, {"work": Work(config, make, images, step.folder)}, sample, _pool(config), progress)
    step.finish(images=sample.images)


def _agreement(
    run: Run, other: Run, stage: str, sample: Selection, own: Observations, progress: ProgressCallback
) -> dict[str, Any]:
    """Return the agreement of the run's landmarks with those of another run's detector on the same images.

    The other run's landmarks are kept in `evaluation/quality_against/`.
    """
    make, _, source = _detector(other, stage)
    dataset = Dataset.open(run.config.dataset)
    name = f"{other.folder.name}-{source['fingerprint'][:8]}"
    reads = {"images": sample.images, "seed": run.config.seed, "decoder": DECODER_VERSION}
    inputs = {"network": source["fingerprint"], "dataset": dataset.fingerprint}
    step = run.step(f"evaluation/quality_against/{name}", "quality_against", reads, inputs)
    if not step.is_current():
        progress(0.0, f"landmarks of {sample.images} images by {other.folder}")
        step.begin()
        # The other run may have been trained on another machine: its detector runs on this run's workers.
        config = replace(other.resolved, compute=run.resolved.compute)
        work = PredictWork(config, make, dataset.images(TRAIN), step.folder)
        map_parts(PredictPart, {"work": work}, sample, _pool(run.resolved), progress)
        step.finish(images=sample.images)
    table = pa.concat_tables(step.folder.read_tables(sample.parts))
    square = np.array([own.side, own.side])
    found = agreement(coordinates.in_square(own.xy, square), np.array(table["xy"].to_pylist(), np.float64))
    return {"run": str(other.folder), **found}


def _pool(config: Config) -> Pool:
    compute = config.compute
    return Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
