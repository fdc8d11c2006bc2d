"""A finished run's landmarks of any images, in the images' own pixels: `kplm predict`.

    <out>/part-00000.parquet ...     schemas.SOURCE_LANDMARKS
    <out>/rejected.parquet           schemas.REJECTED: what could not be used, and why
    <out>/landmarks.csv, coco.json   if asked for
    <out>/manifest.json              written last

A part that is there is done: an interrupted prediction continues with the missing ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset, IngestOptions, PartTables
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.imaging import coordinates
from ray_kplm.inference.dataset import landmarks_of
from ray_kplm.inference.export.formats import to_coco, to_csv
from ray_kplm.landmark_detector import landmark_predictor
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.network.heatmaps import DECODER
from ray_kplm.number_format import resolve_auto
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run import CLAIM, MANIFEST, Run, Step
from ray_kplm.run_lock import lock_folder
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.runtime.tasks import Shared
from ray_kplm.steps.extract import inputs, worker_placement
from ray_kplm.steps.ingest import list_source
from ray_kplm.storage import Folder

_STEP = "predict_images"
_REJECTED_ASIDE = ".rejected"  # <out>/.rejected/part-00000.parquet until all parts are there
_COLUMNS = ["image_id", "image", "width", "height", "box", "crop_to_source"]


@dataclass(frozen=True)
class PredictOptions:
    """Which images, and what is written beside the Parquet parts."""

    boxes: str | None = None
    """As in `kplm ingest`; for a folder of images."""
    margin: float = 0.2
    """Around a box, share of its longer side: as the training images were cut out."""
    split: str | None = None
    """Of a dataset; none: all its images."""
    part_images: int = 512
    """Images a part of a source that is no dataset."""
    csv: bool = False
    """Also `landmarks.csv`, a line a landmark."""
    coco: bool = False
    """Also `coco.json`, COCO keypoints."""


@dataclass(frozen=True)
class PredictReport:
    """What became of the images."""

    out: str
    images: int
    rejected: dict[str, int]
    """Images that could not be used, by kind of reason; each one is in rejected.parquet."""
    existed: bool
    """The same predictions were there; nothing was predicted."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.rejected.items())
        bad = f"{sum(self.rejected.values())} rejected{f' ({kinds})' if kinds else ''}"
        return f"{self.out}: {'already there: ' if self.existed else ''}{self.images} images; {bad}"


def predict_images(
    run: Run,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: PredictOptions | None = None,
    *,
    config: Config | None = None,
    progress: ProgressCallback = ignore_progress,
) -> PredictReport:
    """Landmarks of a folder of images, of Parquet files as `kplm ingest` takes, or of a dataset. Ray must be initialised.

    config: the run's with another `compute`. progress: parts done, of how many. Raises RunError for an unfinished run and for
    an `out` that holds other predictions, DataError for a source without images.
    """
    options, config = options or PredictOptions(), config or run.config
    if replace(config, compute=run.config.compute) != run.config:
        raise ConfigError(
            "predict: only compute.* may differ from the run's configuration, which its network was made for"
        )
    # Of images outside of the run: in the format that suits where it is done, and the same in all workers.
    config = replace(config, compute=resolve_auto(config.compute, gpu=config.compute.gpus_per_worker > 0))
    make = replace(landmark_predictor(run), config=config)
    images = _open(source, options, config)
    target = Folder.at(out)
    step = _step(run, images, target, options)
    with lock_folder(target):
        manifest = step.manifest()
        existed = manifest is not None
        if manifest is None:
            step.begin()
            manifest = _predict(step, images, make, config, progress)
        rejected = Counter(r.partition(":")[0] for r in target.read_table("rejected.parquet")["reason"].to_pylist())
        _export(target, options, manifest["landmarks"], images.name)
    return PredictReport(str(target), manifest["images"], dict(rejected.most_common()), existed)


class PartImages(Protocol):
    """Reads the images of a part where they are needed. Picklable."""

    def __call__(self, part: str) -> PartTables: ...


@dataclass(frozen=True)
class _Source:
    """Images to look at, in parts."""

    name: str
    identity: str
    """Tells the content, for people and for the fingerprint."""
    parts: list[str]
    counts: list[int]
    """Images of each part, rejected ones included."""
    read: PartImages
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Refused without a look at the pixels."""


def _open(source: str | os.PathLike[str], options: PredictOptions, config: Config) -> _Source:
    folder = Folder.at(source)
    if folder.is_file("manifest.json"):
        return _of_dataset(Dataset.open(folder), options)
    if options.split:
        raise DataError(f"{source}: --split {options.split} is of a dataset that `kplm ingest` made, and this is none")
    ingest = IngestOptions(
        boxes=options.boxes, margin=options.margin, part_images=options.part_images, test_share=0.0, min_side=1,
        size=2 * config.network.image_size,
    )  # fmt: skip
    listing = list_source(source, ingest)
    entries = [entry for of_split in listing.splits.values() for entry in of_split]
    pieces = [entries[start : start + options.part_images] for start in range(0, len(entries), options.part_images)]
    parts = [_part(number) for number in range(len(pieces))]
    read = _ListedImages(listing.read_part, dict(zip(parts, map(Shared, pieces), strict=True)))
    identity = f"{len(entries)} images, {listing.identity[:16]}"
    return _Source(listing.meta["name"], identity, parts, [len(piece) for piece in pieces], read, listing.rejected)


def _of_dataset(dataset: Dataset, options: PredictOptions) -> _Source:
    if options.boxes:
        raise DataError(f"{dataset.root}: --boxes is for a folder of images; a dataset's objects are cut out already")
    splits = [options.split] if options.split else list(dataset.manifest["splits"])
    stored = [(dataset.images(split), part) for split in splits for part in dataset.parts(split)]
    parts = [_part(number) for number in range(len(stored))]
    counts = [count for split in splits for count in dataset.rows(split)]
    identity = f"{sum(counts)} images of {'+'.join(splits)}, {dataset.fingerprint[:16]}"
    name = dataset.meta.get("name") or dataset.root.name
    return _Source(name, identity, parts, counts, _StoredImages(dict(zip(parts, stored, strict=True))))


def _part(number: int) -> str:
    return f"part-{number:05d}.parquet"


@dataclass(frozen=True)
class _ListedImages:
    """Entries of a source that was listed; those of a part are one object in the object store."""

    read_part: Callable[[Sequence[Any]], PartTables]
    entries: dict[str, Shared[Sequence[Any]]]

    def __call__(self, part: str) -> PartTables:
        return self.read_part(self.entries[part].get())


@dataclass(frozen=True)
class _StoredImages:
    """Parts of a dataset."""

    stored: dict[str, tuple[Folder, str]]

    def __call__(self, part: str) -> PartTables:
        folder, name = self.stored[part]
        return PartTables(folder.read_table(name, _COLUMNS), None, schemas.REJECTED.empty_table())


def _step(run: Run, images: _Source, target: Folder, options: PredictOptions) -> Step:
    there = [name for name in (*target.names(), *target.folders()) if not name.startswith(".")]
    claim = next((name for name in (MANIFEST, CLAIM) if target.is_file(name)), None)
    if there and (claim is None or target.read_json(claim).get("step") != _STEP):
        raise RunError(f"{target}: is not empty and holds no predictions; choose a new folder")
    trained = run.manifest("stage2")
    assert trained is not None, "landmark_predictor has looked"
    reads = {
        "source": images.identity,
        "margin": options.margin,
        "part_images": options.part_images,
        "flip_at_test": run.config.stage2.flip_at_test,
        "decoder": DECODER,
    }
    remedy = "Predict into another folder, or remove this one"
    return Step(target, _STEP, reads, {"network": trained["fingerprint"]}, remedy)


def _predict(
    step: Step, images: _Source, make: LandmarkPredictorFactory, config: Config, progress: ProgressCallback
) -> dict[str, Any]:
    target, compute = step.folder, config.compute
    pool = Pool(compute.extract_workers, compute.cpus_per_worker, compute.gpus_per_worker)
    arguments = {"read": images.read, "make": make, "target": target}
    answers = map_parts(_PredictPart, arguments, full_selection(images.parts, images.counts), pool, progress)
    aside = target / _REJECTED_ASIDE
    refused = [pa.Table.from_pylist([{"source": s, "reason": r} for s, r in images.rejected], schemas.REJECTED)]
    rejected = pa.concat_tables([*refused, *(aside.read_table(part) for part in aside.parts())])
    target.write_table("rejected.parquet", rejected)
    found = sum(int(answer["images"]) for answer in answers)
    manifest = step.finish(images=found, rejected=rejected.num_rows, landmarks=len(make.flip_map))
    aside.delete()
    return manifest


class _PredictPart:
    """Holds the detector."""

    def __init__(self, read: PartImages, make: LandmarkPredictorFactory, target: Folder) -> None:
        self._read, self._target, self._config = read, target, make.config
        self._predictor = make(worker_placement(make.config.compute))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, int]:
        if self._target.is_file(part):
            return {"images": self._target.rows(part)}
        tables = self._read(part)
        if tables.rejected.num_rows:
            (self._target / _REJECTED_ASIDE).write_table(part, tables.rejected)
        table = schemas.SOURCE_LANDMARKS.empty_table()
        if tables.images.num_rows:
            every = np.arange(tables.images.num_rows)
            _, points, confidence = landmarks_of(inputs(tables.images, every, self._config), self._predictor)
            table = _in_source(tables.images, points, confidence)
        self._target.write_table(part, table)
        return {"images": table.num_rows}


def _in_source(images: pa.Table, points: list[NDArray], confidence: NDArray[np.float32]) -> pa.Table:
    """The images' landmarks, from the crop frame to the source frame."""
    affines = [np.reshape(row, (2, 3)) for row in images["crop_to_source"].to_pylist()]
    columns = [
        images["image_id"],
        [coordinates.apply(a, p).astype(np.float32).tolist() for a, p in zip(affines, points, strict=True)],
        confidence.astype(np.float32).tolist(),
        *zip(*_sizes(images, affines), strict=True),
    ]
    return pa.table(columns, schema=schemas.SOURCE_LANDMARKS)


def _sizes(images: pa.Table, affines: list[NDArray]) -> Iterator[tuple[int | None, int | None]]:
    """Width and height of each picture that was taken whole."""
    for row, affine in zip(images.select(["width", "height", "box"]).to_pylist(), affines, strict=True):
        whole = row["box"] is None
        yield (round(row["width"] * affine[0, 0]), round(row["height"] * affine[1, 1])) if whole else (None, None)


def _export(target: Folder, options: PredictOptions, landmarks: int, name: str) -> None:
    def tables() -> Iterable[pa.Table]:
        return (target.read_table(part) for part in target.parts())

    if options.csv:
        _write_text(target, "landmarks.csv", to_csv(tables))
    if options.coco:
        _write_text(target, "coco.json", to_coco(tables, landmarks, name))


def _write_text(target: Folder, name: str, pieces: Iterable[str]) -> None:
    with target.writing(name) as stream:
        for piece in pieces:
            stream.write(piece.encode())
