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
from functools import reduce
from typing import Any, NamedTuple

import cv2
import pyarrow as pa

from ray_kplm import schemas
from ray_kplm.datasets.chosen_files import list_sources
from ray_kplm.datasets.dataset import (
    DATASET,
    Dataset,
    IngestOptions,
    Listing,
    PartTables,
    dataset_folder,
    printable,
)
from ray_kplm.datasets.duplicates import digests_of, find_repeats
from ray_kplm.datasets.ingest_report import NOTES, REJECTED, IngestReport, example, kinds_of, notes_text
from ray_kplm.datasets.limits import DEFAULT_LIMITS
from ray_kplm.datasets.listing import NoImageError, losses_text
from ray_kplm.datasets.missing_marks import COLUMNS, PointCounts, count_marks
from ray_kplm.errors import DataError, RunError
from ray_kplm.job_copy import refuse_lost
from ray_kplm.locking import lock_folder
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.tasks import Shared, cluster_cpus, run_tasks
from ray_kplm.storage import Folder
from ray_kplm.storage.integrity import MANIFEST, CheckedFolder, read_manifest

_TABLES = ("images", "landmarks")
"""Folders of the tables of a split."""
_ASIDE = {REJECTED: ".rejected", NOTES: ".notes"}  # <split>/.rejected/part-00000.parquet until all parts are there
_DIGESTS = ".digests"  # <split>/.digests/part-00000.parquet, likewise: of the part's pictures


class _Job(NamedTuple):
    split: str
    part: str
    entries: Sequence[Any]


class _Built(NamedTuple):
    rows: int
    longest: int  # side of a stored picture, px
    digests: bytes  # of its pictures, one after another
    points: PointCounts
    reused: bool


def ingest(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    options: IngestOptions | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
) -> IngestReport:
    """Make the dataset `target` of the images of `source`. Ray must be initialised.

    An interrupted ingest is continued by the same call; a finished one is left as it is.

    Args:
        source: see `datasets.listing.list_source`; or several of these, image files and videos.
        target: the dataset's folder, on a disk or an object store.
        options: splits, crops, boxes, annotation.
        progress: called as parts are done.

    Raises:
        DataError: the source has no image to train on.
        RunError: `target` holds something else.
    """
    options = options or IngestOptions()
    refuse_lost(target, "dataset")
    root = dataset_folder(Folder.at(target))
    try:
        listing = list_sources(source, options)
    except NoImageError as error:
        raise _list_losses(Folder.at(target), error) from None
    fingerprint = _fingerprint(listing, options)
    if _is_finished(root, fingerprint):
        root.check_sizes()
        manifest, rejected = read_manifest(root), root.read_table(REJECTED)
        images = {split: manifest["splits"][split]["images"] for split in listing.splits}
        notes = [
            *listing.notes,
            *PointCounts(*manifest.get("points", ())).lines(),
            *notes_text(root),
            *example(rejected),
        ]
        return IngestReport(
            str(root),
            images,
            kinds_of(rejected),
            listing.other_files,
            0,
            existed=True,
            skipped=listing.skipped,
            notes=notes,
        )
    with lock_folder(root.unchecked) as lock:
        owned = dataset_folder(lock.folder)
        return _ingest(_name(source), owned, listing, fingerprint, options, progress)


def _ingest(
    source: str,
    root: CheckedFolder,
    listing: Listing,
    fingerprint: str,
    options: IngestOptions,
    progress: ProgressCallback,
) -> IngestReport:
    if not root.is_file(DATASET):
        root.delete_file(REJECTED)  # of a source without a usable image
    root.write_json(DATASET, {**listing.meta, "source": source, "fingerprint": fingerprint})
    jobs = list(_jobs(listing, options.part_images))
    built = _build(root, listing, jobs, options.workers, progress)
    _sweep(root, listing)
    rejected = _publish(root, listing, REJECTED, listing.rejected)
    _publish(root, listing, NOTES, _repeats(root, jobs, built))
    splits = {split: _split_manifest(split, jobs, built) for split in listing.splits}
    images = {split: table["images"] for split, table in splits.items()}
    if not images[schemas.TRAIN]:
        losses = losses_text(kinds_of(rejected), listing.other_files, listing.skipped)
        raise DataError(
            f"{source}: no image to train on is left; {'; '.join([losses, *example(rejected)])}; see {root}"
        )
    points = reduce(PointCounts.plus, (part.points for part in built.values()), PointCounts())
    manifest = {
        "kind": "dataset",
        "fingerprint": fingerprint,
        "splits": splits,
        "rejected": rejected.num_rows,
        "landmarks": listing.landmarks,
        "points": list(points),
        "sequences": listing.sequences,
        "image_size": max(part.longest for part in built.values()),
    }
    root.publish(manifest, [f"{job.split}/{table}/{job.part}" for job in jobs for table in _TABLES])
    reused = sum(part.reused for part in built.values())
    notes = [*listing.notes, *points.lines(), *notes_text(root), *example(rejected)]
    return IngestReport(
        str(root),
        images,
        kinds_of(rejected),
        listing.other_files,
        reused,
        existed=False,
        skipped=listing.skipped,
        notes=notes,
    )


def _name(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else ", ".join(os.fspath(one) for one in source)


def _list_losses(root: Folder, error: NoImageError) -> DataError:
    """Write what was rejected of a source without a usable image, unless the target holds something, and return the error."""
    others = [name for name in [*root.names(), *root.folders()] if not name.startswith(".") and name != REJECTED]
    if others or not error.rejected:
        return error
    root.write_table(REJECTED, _table(sorted(set(error.rejected))))
    return DataError(f"{error}; see {root}/{REJECTED}")


def _fingerprint(listing: Listing, options: IngestOptions) -> str:
    """Hash what determines the dataset's content; the user's tables and the format are in the identity."""
    read = dataclasses.asdict(options)
    for name in ("workers", "boxes", "landmarks", "sequences", "format", "input_size"):
        del read[name]
    if not options.drop_duplicates:
        del read["drop_duplicates"]
    if options.every is None:
        del read["every"]
    for name, unlimited in (("max_pixels", DEFAULT_LIMITS.pixels), ("max_bytes", DEFAULT_LIMITS.file_bytes)):
        if read[name] == unlimited:  # datasets made before there were limits are current
            del read[name]
    images = pa.schema([field for field in schemas.IMAGES if field.name not in ("source_width", "source_height")])
    layout = [str(images), str(schemas.LANDMARKS)]
    decides = json.dumps([read, listing.identity, listing.meta, layout], sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()


def _is_finished(root: CheckedFolder, fingerprint: str) -> bool:
    """Return whether the dataset is finished. dataset.json claims the folder for an unfinished one; RunError for others."""
    remedy = "choose another folder, or remove it"
    if root.is_file(MANIFEST):
        if Dataset.open(root).fingerprint == fingerprint:
            return True
        raise RunError(f"{root} is a dataset of another source or with other options; {remedy}")
    claim = root.read_object(DATASET).get("fingerprint") if root.is_file(DATASET) else None
    if claim == fingerprint:
        return False
    if claim:
        raise RunError(f"{root} is an unfinished dataset of another source or with other options; {remedy}")
    if [name for name in [*root.names(), *root.folders()] if not name.startswith(".") and name != REJECTED]:
        raise RunError(f"{root} is not empty and no dataset; choose another folder")
    return False


def _jobs(listing: Listing, part_images: int) -> Iterator[_Job]:
    for split, entries in listing.splits.items():
        for number, start in enumerate(range(0, len(entries), part_images)):
            yield _Job(split, f"part-{number:05d}.parquet", entries[start : start + part_images])


def _build(
    root: CheckedFolder, listing: Listing, jobs: list[_Job], workers: int | None, progress: ProgressCallback
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
    root: CheckedFolder, read_part: Shared[Callable[[Sequence[Any]], PartTables]], job: _Job, annotated: bool
) -> _Built:
    """Write one part, unless it exists undamaged."""
    cv2.setNumThreads(1)
    home = root / job.split
    images, landmarks = (home / table for table in _TABLES)
    if images.is_whole(job.part) and (not annotated or landmarks.is_whole(job.part)):
        annotation = landmarks.read_table(job.part, ["landmarks"]) if annotated else None
        digests = _stored_digests(home, job.part)
        return _measure(images.read_table(job.part, COLUMNS), annotation, digests, reused=True)
    tables = read_part.get()(job.entries)
    for name, table in ((REJECTED, tables.rejected), (NOTES, tables.noted)):
        if table.num_rows:
            (home / _ASIDE[name]).write_table(job.part, table)
    digests = digests_of(tables.images["image"].to_pylist())
    if tables.images.num_rows:
        (home / _DIGESTS).write_table(job.part, pa.table({"digests": [digests]}))
        if tables.landmarks is not None:
            landmarks.write_table(job.part, tables.landmarks)
        images.write_table(job.part, tables.images)
    return _measure(tables.images, tables.landmarks, digests, reused=False)


def _stored_digests(home: Folder, part: str) -> bytes:
    """Return the digests of a part that an interrupted ingest has left."""
    if (home / _DIGESTS).is_file(part):
        return bytes((home / _DIGESTS).read_table(part)["digests"][0].as_py())
    return digests_of((home / "images").read_table(part, ["image"])["image"].to_pylist())


def _measure(images: pa.Table, landmarks: pa.Table | None, digests: bytes, *, reused: bool) -> _Built:
    sides = [*images["width"].to_pylist(), *images["height"].to_pylist()]
    return _Built(images.num_rows, max(sides, default=0), digests, count_marks(landmarks, images), reused)


def _repeats(root: Folder, jobs: list[_Job], built: dict[tuple[str, str], _Built]) -> list[tuple[str, str]]:
    """Return the id of each picture that is there twice, and the id of the first."""
    ids: dict[int, list[str]] = {}

    def image_id(number: int, row: int) -> str:
        if number not in ids:
            job = jobs[number]
            ids[number] = (root / job.split / "images").read_table(job.part, ["image_id"])["image_id"].to_pylist()
        return ids[number][row]

    found = []
    for part, row, first_part, first_row in find_repeats([built[job.split, job.part].digests for job in jobs]):
        kind = "repeated in its split" if jobs[part].split == jobs[first_part].split else "in both splits"
        found.append((image_id(part, row), f"{kind}: the same picture as {image_id(first_part, first_row)}"))
    return found


def _sweep(root: CheckedFolder, listing: Listing) -> None:
    """Remove what a killed writer left half-written."""
    for split in listing.splits:
        for folder in (root / split / table for table in _TABLES):
            for name in folder.names(suffix=".partial"):
                folder.delete_file(name)


def _publish(root: Folder, listing: Listing, name: str, known: list[tuple[str, str]]) -> pa.Table:
    """Gather what is said of the inputs of all parts, and what an interrupted ingest has gathered already.

    rejected.parquet is always written, notes.parquet only if it has a row.
    """
    rows = set(known)
    tables = [root.read_table(name)] if root.is_file(name) else []
    for split in listing.splits:
        aside = root / split / _ASIDE[name]
        tables += [aside.read_table(part) for part in aside.parts()]
    for table in tables:
        rows.update(zip(table["source"].to_pylist(), table["reason"].to_pylist(), strict=True))
    gathered = _table(sorted(rows))
    if rows or name == REJECTED:
        root.write_table(name, gathered)
    for split in listing.splits:
        (root / split / _ASIDE[name]).delete()
        (root / split / _DIGESTS).delete()
    return gathered


def _table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table([[printable(row[0]) for row in rows], [printable(row[1]) for row in rows]], schema=schemas.REJECTED)


def _split_manifest(split: str, jobs: list[_Job], built: dict[tuple[str, str], _Built]) -> dict[str, Any]:
    rows = {job.part: built[split, job.part].rows for job in jobs if job.split == split}
    kept = {part: count for part, count in rows.items() if count}
    return {"images": sum(kept.values()), "parts": list(kept), "rows": list(kept.values())}
