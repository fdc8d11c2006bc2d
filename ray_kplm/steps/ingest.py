"""Ingest: a source of images becomes a dataset, part by part. Each part is one task, which writes its own tables.

A part is done when its images are on storage, because they are written last. Run again, the step builds the parts
that are missing; the manifest is written when none is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import pyarrow as pa

from ray_kplm import schemas
from ray_kplm.datasets.dataset import Dataset, IngestOptions, Listing, PartTables
from ray_kplm.datasets.listing import count_kinds, list_source, losses_text
from ray_kplm.errors import DataError, RunError
from ray_kplm.job_copy import refuse_lost
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.run_lock import lock_folder
from ray_kplm.runtime.tasks import Shared, cluster_cpus, run_tasks
from ray_kplm.storage import Folder

_REJECTED_ASIDE = ".rejected"  # <split>/.rejected/part-00000.parquet until all parts are there


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What became of a source."""

    dataset: str
    images: dict[str, int]
    """Images of each split."""
    rejected: dict[str, int]
    """Rejected inputs by kind of reason; each one is in rejected.parquet."""
    other_files: int
    """Files of the source that are no images."""
    reused_parts: int
    """Parts that an interrupted run had left whole."""
    existed: bool
    """The same dataset was already there; nothing was done."""

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.images.items())
        lead = "already there: " if self.existed else ""
        return f"{self.dataset}: {lead}{splits}; {losses_text(self.rejected, self.other_files)}"


class _Job(NamedTuple):
    split: str
    part: str
    entries: Sequence[Any]


class _Built(NamedTuple):
    rows: int
    longest: int  # side of a stored picture, px
    reused: bool


def ingest(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: IngestOptions | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
) -> IngestReport:
    """Make the dataset `target` of the images of `source`. Ray must be initialised.

    An interrupted ingest is continued by the same call; a finished one is left as it is.

    Args:
        source: see `datasets.listing.list_source`.
        target: the dataset's folder, on a disk or an object store.
        options: splits, crops, boxes, annotation.
        progress: called as parts are done.

    Raises:
        DataError: the source has no image to train on.
        RunError: `target` holds something else.
    """
    options = options or IngestOptions()
    refuse_lost(target, "dataset")
    listing = list_source(source, options)
    fingerprint = _fingerprint(listing, options)
    root = Folder.at(target)
    if _is_finished(root, fingerprint):
        manifest, rejected = root.read_json("manifest.json"), root.read_table("rejected.parquet")
        images = {split: manifest["splits"][split]["images"] for split in listing.splits}
        return IngestReport(str(root), images, _kinds(rejected), listing.other_files, 0, existed=True)
    with lock_folder(root):
        return _ingest(source, root, listing, fingerprint, options, progress)


def _ingest(
    source: str | os.PathLike[str],
    root: Folder,
    listing: Listing,
    fingerprint: str,
    options: IngestOptions,
    progress: ProgressCallback,
) -> IngestReport:
    root.write_json("dataset.json", {**listing.meta, "source": os.fspath(source), "fingerprint": fingerprint})
    jobs = list(_jobs(listing, options.part_images))
    built = _build(root, listing, jobs, options.workers, progress)
    _sweep(root, listing)
    rejected = _publish_rejected(root, listing)
    splits = {split: _split_manifest(split, jobs, built) for split in listing.splits}
    images = {split: table["images"] for split, table in splits.items()}
    if not images[schemas.TRAIN]:
        losses = losses_text(_kinds(rejected), listing.other_files)
        raise DataError(f"{source}: no image to train on is left; {losses}; see {root}/rejected.parquet")
    manifest = {
        "kind": "dataset",
        "fingerprint": fingerprint,
        "splits": splits,
        "rejected": rejected.num_rows,
        "landmarks": listing.landmarks,
        "sequences": listing.sequences,
        "image_size": max(part.longest for part in built.values()),
    }
    root.write_json("manifest.json", manifest)
    reused = sum(part.reused for part in built.values())
    return IngestReport(str(root), images, _kinds(rejected), listing.other_files, reused, existed=False)


def _fingerprint(listing: Listing, options: IngestOptions) -> str:
    """Hash what determines the dataset's content; the user's tables and the format are in the identity."""
    read = dataclasses.asdict(options)
    for name in ("workers", "boxes", "landmarks", "sequences", "format"):
        del read[name]
    layout = [str(schemas.IMAGES), str(schemas.LANDMARKS)]
    decides = json.dumps([read, listing.identity, listing.meta, layout], sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()


def _is_finished(root: Folder, fingerprint: str) -> bool:
    """Return whether the dataset is finished. dataset.json claims the folder for an unfinished one; RunError for others."""
    remedy = "choose another folder, or remove it"
    if root.is_file("manifest.json"):
        if Dataset.open(root).fingerprint == fingerprint:
            return True
        raise RunError(f"{root} is a dataset of another source or with other options; {remedy}")
    claim = root.read_json("dataset.json").get("fingerprint") if root.is_file("dataset.json") else None
    if claim == fingerprint:
        return False
    if claim:
        raise RunError(f"{root} is an unfinished dataset of another source or with other options; {remedy}")
    if [name for name in [*root.names(), *root.folders()] if not name.startswith(".")]:
        raise RunError(f"{root} is not empty and no dataset; choose another folder")
    return False


def _jobs(listing: Listing, part_images: int) -> Iterator[_Job]:
    for split, entries in listing.splits.items():
        for number, start in enumerate(range(0, len(entries), part_images)):
            yield _Job(split, f"part-{number:05d}.parquet", entries[start : start + part_images])


def _build(
    root: Folder, listing: Listing, jobs: list[_Job], workers: int | None, progress: ProgressCallback
) -> dict[tuple[str, str], _Built]:
    """Run the jobs, at most `workers` at a time."""
    read_part = Shared(listing.read_part)
    total, done = sum(len(job.entries) for job in jobs), 0
    built: dict[tuple[str, str], _Built] = {}
    calls = [(root, read_part, job, listing.landmarks > 0) for job in jobs]
    for number, part in run_tasks(_build_part, calls, at_most=workers or cluster_cpus()):
        job = jobs[number]
        built[job.split, job.part] = part
        done += len(job.entries)
        progress(done / total, f"{done}/{total} images")
    return built


def _build_part(
    root: Folder, read_part: Shared[Callable[[Sequence[Any]], PartTables]], job: _Job, annotated: bool
) -> _Built:
    """Write one part, unless it exists."""
    cv2.setNumThreads(1)
    images, landmarks = root / job.split / "images", root / job.split / "landmarks"
    if images.is_file(job.part) and (landmarks.is_file(job.part) or not annotated):
        return _measure(images.read_table(job.part, ["width", "height"]), reused=True)
    tables = read_part.get()(job.entries)
    if tables.rejected.num_rows:
        (root / job.split / _REJECTED_ASIDE).write_table(job.part, tables.rejected)
    if tables.images.num_rows:
        if tables.landmarks is not None:
            landmarks.write_table(job.part, tables.landmarks)
        images.write_table(job.part, tables.images)
    return _measure(tables.images, reused=False)


def _measure(images: pa.Table, *, reused: bool) -> _Built:
    sides = [*images["width"].to_pylist(), *images["height"].to_pylist()]
    return _Built(images.num_rows, max(sides, default=0), reused)


def _sweep(root: Folder, listing: Listing) -> None:
    """Remove what a killed writer left half-written."""
    for split in listing.splits:
        for folder in (root / split / "images", root / split / "landmarks"):
            for name in folder.names(suffix=".partial"):
                folder.delete_file(name)


def _publish_rejected(root: Folder, listing: Listing) -> pa.Table:
    """Gather the rejected inputs of all parts, and those that an interrupted ingest has gathered already."""
    rows = set(listing.rejected)
    tables = [root.read_table("rejected.parquet")] if root.is_file("rejected.parquet") else []
    for split in listing.splits:
        aside = root / split / _REJECTED_ASIDE
        tables += [aside.read_table(part) for part in aside.parts()]
    for table in tables:
        rows.update(zip(table["source"].to_pylist(), table["reason"].to_pylist(), strict=True))
    rejected = _rejected_table(sorted(rows))
    root.write_table("rejected.parquet", rejected)
    for split in listing.splits:
        (root / split / _REJECTED_ASIDE).delete()
    return rejected


def _rejected_table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table([[row[0] for row in rows], [row[1] for row in rows]], schema=schemas.REJECTED)


def _split_manifest(split: str, jobs: list[_Job], built: dict[tuple[str, str], _Built]) -> dict[str, Any]:
    rows = {job.part: built[split, job.part].rows for job in jobs if job.split == split}
    kept = {part: count for part, count in rows.items() if count}
    return {"images": sum(kept.values()), "parts": list(kept), "rows": list(kept.values())}


def _kinds(rejected: pa.Table) -> dict[str, int]:
    """Number of rejected inputs by kind."""
    return count_kinds(rejected["reason"].to_pylist())
