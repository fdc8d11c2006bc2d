"""Landmarks of any images by a finished run, in the images' own pixels: `kplm predict`.

    <out>/part-00000.parquet ...     schemas.SOURCE_LANDMARKS
    <out>/rejected.parquet           schemas.REJECTED: images that could not be used, and the reasons
    <out>/landmarks.csv, coco.json, ...   if requested, see export.formats
    <out>/manifest.json              written last

Parts that exist are complete, so an interrupted prediction continues with the missing ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.config import Config
from ray_kplm.datasets.limits import DEFAULT_LIMITS, Limits
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.detectors.stored import detector_fingerprint, landmark_predictor
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.imaging import coordinates
from ray_kplm.inference.batches import BatchLandmarks, predict_batches, probability_column
from ray_kplm.inference.export.formats import check_formats, export
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.inference.sources import ImageSource, ReadPart, SourceOptions, open_source
from ray_kplm.inference.videos import (
    JitterFigures,
    RenderOptions,
    check_videos,
    jitter_lines,
    read_jitter,
    render_videos,
    smooth_parts,
)
from ray_kplm.job_copy import refuse_lost
from ray_kplm.locking import lock_folder
from ray_kplm.methods.inputs import make_inputs, worker_placement
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.methods.visibility import MIN_PROBABILITY, found_of
from ray_kplm.network.compute import choose_device
from ray_kplm.network.heatmaps import DECODER_VERSION
from ray_kplm.number_format import resolve_auto
from ray_kplm.parts import Pool, ThisProcess, Workers
from ray_kplm.points.layout import Layout
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.ranges import MARGINS, PART_IMAGES, PROBABILITIES, check_ranges
from ray_kplm.run import CLAIM, MANIFEST, Run, Step, versions
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import OUTPUTS, CheckedFolder
from ray_kplm.video.options import SmoothOptions

_STEP = "predict_images"
INPUT_VERSION = 2
"""Of the way from a picture to the network's input; landmarks that were predicted in another way are not continued."""
_PARTIAL_REJECTED = ".rejected"
"""Folder of the rejected images of each part, until all parts are complete."""
_NOT_SMOOTHED = ".not_smoothed"
"""Folder of the landmarks as they were detected, until they are smoothed."""


@dataclass(frozen=True)
class PredictOptions:
    """Choice of the images, and of files to write beside the Parquet parts."""

    boxes: str | None = None
    """File of boxes, as for `kplm ingest`; for a folder of images."""
    margin: Annotated[float, MARGINS] = 0.2
    """Margin around a box, as a share of its longer side; the one the training images were cropped with."""
    split: str | None = None
    """Split of a dataset; None for all its images."""
    part_images: Annotated[int, PART_IMAGES] = 512
    """Number of images in a part, of a source that is not a dataset."""
    limits: Limits = DEFAULT_LIMITS
    """Of an image file and of a picture; larger ones are rejected."""
    min_probability: Annotated[float | None, PROBABILITIES] = None
    """Least probability of a landmark that is `found`; None: `MIN_PROBABILITY`, also for detectors without probabilities."""
    to: tuple[str, ...] = ()
    """Formats to write the landmarks in, of `export.formats.FORMATS`, beside the Parquet parts."""
    names: tuple[str, ...] = ()
    """Names of the landmarks in these formats and in drawn videos; by default their own, or `landmark_0` and so on."""
    points: str | None = None
    """Which points of the run to predict: see `LandmarkDetector.load`."""
    csv: bool = False
    """The same as `csv` in `to`."""
    coco: bool = False
    """The same as `coco` in `to`."""
    smooth: SmoothOptions = field(default_factory=SmoothOptions)
    """How the landmarks of videos are smoothed over time, in all that is written."""
    render: RenderOptions | None = None
    """Where to write videos with their landmarks drawn; None: nowhere."""

    def __post_init__(self) -> None:
        check_ranges(self, "predict: ")

    @property
    def least(self) -> float:
        """Least probability of a landmark that is `found`."""
        return MIN_PROBABILITY if self.min_probability is None else self.min_probability

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of `to`, `csv` and `coco`, each once."""
        flags = {"csv": self.csv, "coco": self.coco}
        return tuple(dict.fromkeys([*self.to, *(name for name, is_wanted in flags.items() if is_wanted)]))


@dataclass(frozen=True)
class PredictReport:
    """Summary of a prediction."""

    out: str
    """Folder of the predictions."""
    images: int
    """Number of images with landmarks."""
    rejected: dict[str, int]
    """Number of images that could not be used, by kind of reason; each one is listed in rejected.parquet."""
    existed: bool
    """Whether the same predictions existed already, so that nothing was predicted."""
    notes: tuple[str, ...] = ()
    """What the user is told of the source, a line each."""
    jitter: JitterFigures = field(default_factory=dict)
    """Of each video: see `inference.videos.Smoothed.jitter`."""
    rendered: tuple[str, ...] = ()
    """Videos that were written."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.rejected.items())
        rejected = f"{sum(self.rejected.values())} rejected{f' ({kinds})' if kinds else ''}"
        line = f"{self.out}: {'exists already: ' if self.existed else ''}{self.images} images; {rejected}"
        return "\n".join([line, *self.notes, *jitter_lines(self.jitter), *self.rendered])

    def figures(self) -> dict[str, Any]:
        """Return what `kplm predict --json` prints."""
        return {**asdict(self), "notes": list(self.notes), "rendered": list(self.rendered)}


def predict_images(
    run: Run,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: PredictOptions | None = None,
    *,
    config: Config | None = None,
    workers: Workers | None = None,
    device: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> PredictReport:
    """Predict the landmarks of images and write them to a folder.

    Args:
        run: A finished run.
        source: A folder of images and videos or of Parquet files as `kplm ingest` takes, a dataset, an image file, a video, a
            pattern such as `photos/*.jpg`, or several files, patterns and folders.
        out: The folder to write to; a new one, or that of the same prediction, which is continued.
        options: Choice of the images and of files to write.
        config: The run's configuration with another `compute`; by default the run's own.
        workers: Where to work: by default in this process, or `runtime.map_parts.RayWorkers()` in a Ray session.
        device: Of this process: `cpu`, `cuda` or `mps`; by default a GPU if one is available.
        progress: Called after each part.

    Raises:
        RunError: The run is not finished, or `out` holds something else.
        DataError: The source has no images, or the options do not apply to it.
        ConfigError: `config` differs from the run's in more than `compute`, a format does not exist or its packages are not
            installed, or the names are not those of all landmarks.
    """
    options, config, workers = options or PredictOptions(), config or run.config, workers or ThisProcess()
    refuse_lost(out, "out")
    check_formats(options.formats)
    if replace(config, compute=run.config.compute) != run.config:
        raise ConfigError(
            "predict: only compute.* may differ from the run's configuration, as the network was trained with the rest"
        )
    # The number format is decided here, by the machine that predicts and not by the run, and is the same in all workers.
    used = choose_device(device) if isinstance(workers, ThisProcess) else None
    gpu = config.compute.gpus_per_worker > 0 if used is None else used.type == "cuda"
    config = replace(config, compute=resolve_auto(workers.layout(config.compute), gpu=gpu))
    make = replace(landmark_predictor(run, options.points), config=config)
    if make.visibility is None and options.min_probability is not None:
        raise ConfigError(
            f"--min-probability {options.min_probability:g}: the detector of {run.folder} gives no probabilities; `kplm train` "
            "again with its run adds them"
        )
    reading = SourceOptions(
        config.network.image_size, options.boxes, options.margin, options.split, options.part_images, options.limits
    )
    images = open_source(source, reading, workers)
    check_videos(images.videos, options.smooth, options.render)
    layout = make.layout.called(images.name, options.names)
    target = Folder.at(out)
    step = _step(run, images, target, options)
    with lock_folder(target) as lock:
        target = replace(step.folder, guard=lock.folder.guard)
        step = replace(step, folder=target)
        manifest = step.manifest()
        if manifest is not None:
            step.folder.check_sizes()
        existed = manifest is not None
        if manifest is None:
            step.begin()
            worker = {"read": images.read, "make": make, "target": step.folder, "device": used}
            manifest = _predict(step, images, worker, config, options, workers, progress)
        rejected = Counter(r.partition(":")[0] for r in target.read_table("rejected.parquet")["reason"].to_pylist())
        notes = _export(target if OUTPUTS in manifest else target.unchecked, options, manifest, layout)
        if target.written():
            target.publish(manifest, (), manifest[OUTPUTS])
        labels = layout.names if layout.is_named else [str(k) for k in range(manifest["landmarks"])]
        rendered = render_videos(target, images.videos, options.render, labels, layout.skeleton, progress)
    kinds, jitter = dict(rejected.most_common()), read_jitter(manifest)
    said = (*images.notes, *notes)
    return PredictReport(str(target), manifest["images"], kinds, existed, said, jitter, rendered)


def _step(run: Run, images: ImageSource, target: Folder, options: PredictOptions) -> Step:
    if target.parent.is_file(target.name):
        raise RunError(f"{target} is a file; the last path is the folder that the landmarks are written to")
    content = [name for name in (*target.names(), *target.folders()) if not name.startswith(".")]
    claim = next((name for name in (MANIFEST, CLAIM) if target.is_file(name)), None)
    if content and (claim is None or target.read_object(claim).get("step") != _STEP):
        raise RunError(f"{target}: is not empty and holds no predictions; choose a new folder")
    reads: dict[str, Any] = {
        "source": images.identity,
        "margin": options.margin,
        "part_images": options.part_images,
        "flip_at_test": run.config.stage2.flip_at_test,
        "decoder": DECODER_VERSION,
        "input": INPUT_VERSION,
        "min_probability": options.least,
    }
    if options.limits != DEFAULT_LIMITS:
        reads["limits"] = list(options.limits)
    if options.smooth.method != "none":
        reads["smooth"] = asdict(options.smooth)
    damaged = f"`kplm verify {target} --repair` removes what is damaged, and the same prediction makes it again"
    remedy = "Predict into another folder, or remove this one"
    return Step(
        CheckedFolder.of(target, damaged), _STEP, reads, {"network": detector_fingerprint(run, options.points)}, remedy
    )


def _predict(
    step: Step,
    images: ImageSource,
    worker: dict[str, Any],
    config: Config,
    options: PredictOptions,
    workers: Workers,
    progress: ProgressCallback,
) -> dict[str, Any]:
    target, compute = step.folder, config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    index = images.videos.index if images.videos else {}
    smoothed = bool(index) and options.smooth.method != "none"
    parts = target / _NOT_SMOOTHED if smoothed else target
    worker |= {
        "min_probability": options.least,
        "parts": parts,
        "seconds": {video: of.seconds for video, of in index.items()},
    }
    answers = workers.map(_PredictPart, worker, full_selection(images.parts, images.counts), pool, progress)
    partial = target / _PARTIAL_REJECTED
    refused = pa.Table.from_pylist([{"source": s, "reason": r} for s, r in images.rejected], schemas.REJECTED)
    rejected = pa.concat_tables([refused, *(partial.read_table(part) for part in partial.parts())])
    target.write_table("rejected.parquet", rejected)
    predicted = sum(int(answer["images"]) for answer in answers)
    jitter = smooth_parts(parts, target, images.parts, options.smooth) if index else {}
    facts: dict[str, Any] = {"jitter": jitter} if jitter else {}
    facts["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = step.finish(images=predicted, rejected=rejected.num_rows, landmarks=len(worker["make"].layout), **facts)
    partial.delete()
    if smoothed:
        parts.delete()
    return manifest


class _PredictPart:
    """Worker that holds the detector and writes the landmarks of a part."""

    def __init__(
        self,
        read: ReadPart,
        make: LandmarkPredictorFactory,
        target: Folder,
        device: torch.device | None = None,
        min_probability: float = MIN_PROBABILITY,
        parts: Folder | None = None,
        seconds: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        """Take what a part needs. parts: where the landmarks go, by default `target`; seconds: of the frames of videos."""
        self._parts, self._seconds = parts or target, seconds or {}
        self._read, self._target, self._config, self._min_probability = read, target, make.config, min_probability
        self._predictor = make(worker_placement(make.config.compute, device))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, int]:
        if self._parts.is_whole(part):
            return {"images": self._parts.rows(part)}
        tables = self._read(part)
        if tables.rejected.num_rows:
            (self._target / _PARTIAL_REJECTED).write_table(part, tables.rejected)
        table = schemas.SOURCE_LANDMARKS.empty_table()
        if tables.images.num_rows:
            all_rows = np.arange(tables.images.num_rows)
            found = predict_batches(make_inputs(tables.images, all_rows, self._config), self._predictor)
            table = _in_source(tables.images, found, self._min_probability, self._seconds)
        self._parts.write_table(part, table)
        return {"images": table.num_rows}


def _in_source(
    images: pa.Table, found: BatchLandmarks, least: float, seconds: Mapping[str, NDArray[np.float64]]
) -> pa.Table:
    """Return the table of the images' landmarks, transformed from the crop frame to the source frame."""
    affines = [np.reshape(row, (2, 3)) for row in images["crop_to_source"].to_pylist()]
    columns = [
        images["image_id"],
        [coordinates.apply(a, p).astype(np.float32).tolist() for a, p in zip(affines, found.xy, strict=True)],
        found.confidence.astype(np.float32).tolist(),
        probability_column(found.probability),
        found_of(np.stack(found.xy), found.probability, least).tolist(),
        *zip(*_sizes(images, affines), strict=True),
        images["sequence"],
        images["frame"],
        [
            float(seconds[video][frame]) if video in seconds else None
            for video, frame in zip(images["sequence"].to_pylist(), images["frame"].to_pylist(), strict=True)
        ],
    ]
    return pa.table(columns, schema=schemas.SOURCE_LANDMARKS)


def _sizes(images: pa.Table, affines: list[NDArray[np.float64]]) -> Iterator[tuple[int | None, int | None]]:
    """Yield width and height of each source image; None where a dataset of an earlier version cut the object out."""
    names = ["width", "height", "box", "source_width", "source_height"]
    for row, affine in zip(images.select(names).to_pylist(), affines, strict=True):
        if row["source_width"] is not None:
            yield row["source_width"], row["source_height"]
        elif row["box"] is None:
            yield round(row["width"] * affine[0, 0]), round(row["height"] * affine[1, 1])
        else:
            yield None, None


def _export(target: Folder, options: PredictOptions, manifest: dict[str, Any], layout: Layout) -> list[str]:
    """Write the formats that are asked for from the parts; return notes for the user."""
    if not options.formats:
        return []
    found = Predictions(
        lambda: (target.read_table(part) for part in target.parts()), layout, manifest["reads"]["min_probability"],
        manifest["inputs"]["network"], versions().get("ray-kplm", ""), manifest.get("date"),
    )  # fmt: skip
    return export(found.with_skeleton(), target, options.formats)
