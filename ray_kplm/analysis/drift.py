"""Whether new images are like those of a run's training, and whether its detector works on them: `kplm drift`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from ray_kplm.analysis.drift_choices import ALONE, AUTO
from ray_kplm.analysis.drift_measures import MEASURES_VERSION, SCHEMA, Detectors, Meter, measured
from ray_kplm.analysis.drift_sources import DriftSource, Part, new_images, training_sample
from ray_kplm.analysis.drift_times import Since, Times, since_when, times_of
from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.detectors.stored import detector_fingerprint, is_run, landmark_predictor
from ray_kplm.errors import DamageError, DataError, RunError
from ray_kplm.inference.sources import SourceOptions
from ray_kplm.methods import build_method
from ray_kplm.methods.cluster_predictor import ClusterPredictorFactory
from ray_kplm.methods.inputs import worker_placement
from ray_kplm.network.compute import choose_device
from ray_kplm.network.heatmaps import DECODER_VERSION
from ray_kplm.number_format import resolve_auto
from ray_kplm.parts import ThisProcess
from ray_kplm.points.stored import LANDMARKS
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import Run, round_path
from ray_kplm.schemas import TRAIN
from ray_kplm.screening import drift as screening
from ray_kplm.screening.drift import Drift, find_drift

REFERENCE = "drift/reference"
"""The step of a run that keeps what was measured of its training images."""
REFERENCE_IMAGES = 600
"""Training images that are measured, a seeded sample."""
_DRIFT = "drift"


@dataclass(frozen=True)
class DriftOptions:
    """Which images are compared, and how.

    Attributes:
        boxes: See `SourceOptions`.
        margin: See `SourceOptions`.
        split: See `SourceOptions`.
        limits: See `SourceOptions`.
        images: New images that are looked at, at most; of more, as many that are evenly spread over all.
        groups: How new images depend on each other: FOLDER, ALONE, or None as the source and the training say.
        time: What says when an image was made, one of `drift_choices.TIMES`.
    """

    boxes: str | None = None
    margin: float = 0.2
    split: str | None = None
    limits: Limits = DEFAULT_LIMITS
    images: int = REFERENCE_IMAGES
    groups: str | None = None
    time: str = AUTO


@dataclass(frozen=True, eq=False)
class DriftReport:
    """What `kplm drift` found.

    Attributes:
        run: Name of the run.
        source: Name of the new images.
        drift: The comparison.
        reference: What was measured of the training images, `drift_measures.SCHEMA`.
        new: Likewise of the new images.
        total: Number of new images that there are.
        rejected: Name and reason of each image that could not be used.
        since: When the drift began; None if there is none, or no time.
        times: When the new images were made; None if it is not known.
        notes: What the user is told, a line each.
        side: Of the network's input, pixels.
    """

    run: str
    source: str
    drift: Drift
    reference: pa.Table = field(repr=False)
    new: pa.Table = field(repr=False)
    total: int
    rejected: list[tuple[str, str]]
    since: Since | None
    times: Times | None
    notes: list[str]
    side: int

    @property
    def rejected_kinds(self) -> dict[str, int]:
        """Number of images that could not be used, by kind of reason."""
        return dict(Counter(reason.partition(":")[0] for _, reason in self.rejected).most_common())


def drift(
    run: Run,
    sources: Sequence[str],
    options: DriftOptions | None = None,
    *,
    device: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> DriftReport:
    """Compare new images with the training images of a run.

    What is measured of the training images is kept in `<run>/drift/reference`, and measured anew when the detector or the
    dataset has changed. It is also used where the dataset is not there any more. Ray is not needed.

    Args:
        run: A finished run.
        sources: As `inference.sources.open_source` takes them: a folder, files, videos, patterns, Parquet or a dataset.
        options: Which images are compared, and how.
        device: `cpu`, `cuda` or `mps`; by default a GPU if one is available.
        progress: Called as the work goes on.

    Raises:
        RunError: The run is not finished, or there is only its detector.
        DataError: There are no images, or neither a dataset nor a reference of it.
    """
    options = options or DriftOptions()
    if not is_run(run):
        raise RunError(
            f"{run.folder}: is a detector without its run, and drift is against the training images; name the run"
        )
    used = choose_device(device)
    compute = resolve_auto(ThisProcess().layout(run.config.compute), gpu=used.type == "cuda")
    config, notes = replace(run.config, compute=compute), []
    stage1 = _stage1(run, config)
    if stage1 is None:
        notes.append("the run has no clusters of its rounds: the distance of descriptors to them is left out")
    make = Detectors(config, replace(landmark_predictor(run, LANDMARKS), config=config), stage1)
    meter: list[Meter] = []

    def measure(part: Part) -> tuple[pa.Table, list[tuple[str, str]]]:
        if not meter:
            meter.append(Meter(make, worker_placement(compute, used)))
        images, groups, lost = part.read()
        readable = part.rows[part.rows < images.num_rows]
        return meter[0](images, groups, readable), lost

    reference, crop_size, said = _reference(run, measure, stage1 is not None, part_of(progress, 0.0, 0.5))
    notes += said
    reading = SourceOptions(
        config.network.image_size,
        options.boxes,
        options.margin,
        options.split,
        limits=options.limits,
        crop_size=crop_size,
    )
    source = new_images(sources, reading, options.images, options.groups)
    new, rejected = _measure_new(source, measure, part_of(progress, 0.5, 1.0))
    side = config.network.image_size
    grouping = screening.ALONE if options.groups == ALONE else None
    found = find_drift(measured(reference, side), measured(new, side), grouping=grouping, seed=run.config.seed)
    times = times_of(new, sources, options.time)
    since = since_when(found, times, run.config.seed) if times is not None else None
    notes += [*source.notes, *_said_of(found, source, new.num_rows, reference.num_rows)]
    name = f"{run.folder.parent.name}/{run.folder.name}"
    return DriftReport(name, source.name, found, reference, new, source.total, rejected, since, times, notes, side)


def _stage1(run: Run, config: Config) -> ClusterPredictorFactory | None:
    """Return the predictor of the last round's clusters; None if the run's method or its folder has none."""
    from ray_kplm.correspondence.clusters import CLUSTERS, read_clusters

    number = run.config.stage1.rounds
    labels, folder = run.manifest(f"{round_path(number)}/labels"), run.unit(f"{round_path(number)}/labels").parent
    if labels is None or run.manifest(f"{round_path(number)}/train") is None or not folder.is_file(CLUSTERS):
        return None
    clusters = read_clusters(folder)
    if "landmark_centroids" not in clusters:
        return None
    network = run.unit(f"{round_path(number)}/train")
    make = build_method(config).stage1_predictor(network, clusters, labels["threshold"])
    return replace(make, round=folder)


def _reference(
    run: Run, measure: Any, has_clusters: bool, progress: ProgressCallback
) -> tuple[pa.Table, int, list[str]]:
    """Return what was measured of the training images, the longest side of their crops, and notes."""
    seed = run.config.seed
    reads = {
        "images": REFERENCE_IMAGES, "seed": seed, "version": MEASURES_VERSION, "decoder": DECODER_VERSION,
        "flip_at_test": run.config.stage2.flip_at_test, "clusters": has_clusters,
    }  # fmt: skip
    network = detector_fingerprint(run, LANDMARKS)
    try:
        dataset = Dataset.open(run.config.dataset)
    except DataError as error:
        return _kept(run, reads, network, error)
    step = run.step(REFERENCE, _DRIFT, reads, {"network": network, "dataset": dataset.fingerprint})
    sample = training_sample(dataset, TRAIN, REFERENCE_IMAGES, seed)
    if not step.is_current():
        step.begin()
        for number, part in enumerate(sample):
            progress(number / len(sample), f"{sum(len(p.rows) for p in sample)} training images, once")
            if not step.folder.is_whole(part.name):
                step.folder.write_table(part.name, measure(part)[0])
        step.finish(crop_size=int(dataset.manifest.get("image_size", 256)))
    table = pa.concat_tables(step.folder.read_table(part.name) for part in sample)
    return _enough(run, table), int(run.finished(REFERENCE)["crop_size"]), []


def _kept(run: Run, reads: dict[str, Any], network: str, error: DataError) -> tuple[pa.Table, int, list[str]]:
    """Return what `_reference` does where the dataset is not there any more."""
    try:
        manifest = run.manifest(REFERENCE)
    except DamageError:
        manifest = None
    if manifest is None or manifest["reads"] != reads or manifest["inputs"]["network"] != network:
        raise DataError(
            f"{error}; drift is against the training images, of which {run.folder}/{REFERENCE} keeps what is needed, once "
            "`kplm drift` was run beside them"
        )
    folder = run.unit(REFERENCE)
    table = pa.concat_tables(folder.read_table(name) for name in folder.parts())
    return (
        _enough(run, table),
        int(manifest["crop_size"]),
        ["the dataset is not there; its images were measured before"],
    )


def _enough(run: Run, table: pa.Table) -> pa.Table:
    if table.num_rows < screening.LEAST_REFERENCE:
        raise DataError(
            f"{run.config.dataset}: {table.num_rows} training images do not say what is usual; drift takes "
            f"{screening.LEAST_REFERENCE} at least"
        )
    return table


def _measure_new(
    source: DriftSource, measure: Any, progress: ProgressCallback
) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Return what was measured of the new images, and what could not be used. Raises DataError if no image is left."""
    tables, rejected = [], list(source.rejected)
    total, done = sum(len(part.rows) for part in source), 0
    for part in source:
        progress(done / total, f"{done} of {total} new images")
        table, lost = measure(part)
        tables.append(table)
        rejected += lost
        done += len(part.rows)
    progress(1.0, f"{done} of {total} new images")
    new = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    if not new.num_rows:
        example = ", e.g. {}: {}".format(*rejected[0]) if rejected else ""
        raise DataError(f"{source.name}: no image can be used; {len(rejected)} rejected{example}")
    return new, rejected


def _said_of(found: Drift, source: DriftSource, new: int, reference: int) -> list[str]:
    """Return notes on what the comparison rests on."""
    notes = []
    looked_at = sum(len(part.rows) for part in source)
    if looked_at < source.total:
        notes.append(f"{looked_at} of {source.total} images were looked at, evenly spread; --images looks at more")
    if found.p is None:
        notes.append(
            f"{new} image{'s' if new > 1 else ''}: judged one by one; whether there is a trend takes "
            f"{screening.LEAST_IMAGES} at least"
        )
    if found.few_groups:
        notes.append(
            f"the training images come in {found.few_groups} groups, too few to tell how much groups differ: each image was "
            "taken by itself, so that a new group may count as drift"
        )
    if found.grouping == screening.AS_TRAINING:
        notes.append(
            "the new images were taken to come in groups as the training images do; with --groups none each is one by itself"
        )
    if reference < 100:
        notes.append(f"{reference} training images are few: small changes are not seen")
    return notes
