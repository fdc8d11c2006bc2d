"""The report of a finished run, `<run>/report/index.html`: `kplm report`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ray_kplm.analysis.embedding import embed, embedding_step, read_embeddings
from ray_kplm.analysis.evaluate import evaluate
from ray_kplm.analysis.label_free import measure_quality
from ray_kplm.analysis.mirror_images import mirror_images
from ray_kplm.analysis.predictions import landmarks_of
from ray_kplm.analysis.training_history import merges, rounds
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.stored import facing_rule
from ray_kplm.errors import ConfigError
from ray_kplm.evaluation.canonical_frame import mean_shape
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.imaging.coordinates import in_square
from ray_kplm.imaging.crops import crop_sizes, decode_crop
from ray_kplm.methods.channels import Channels
from ray_kplm.points.point_set import PointSet
from ray_kplm.points.stored import EDITED, point_folder, read_point_set
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.report.cards import Findings, choose, make_album
from ray_kplm.report.edited_points import marks_of
from ray_kplm.report.model_card import layout_picture
from ray_kplm.report.pictures import data_uri
from ray_kplm.report.run_page import Evidence, build_page
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.steps.choose import CHOICE
from ray_kplm.steps.recorder import record

PAGE = "index.html"
IMAGES = 500
"""Default of the largest number of images in the gallery."""


def report(run: Run, progress: ProgressCallback = ignore_progress, images: int = IMAGES) -> str:
    """Write the page and return its path.

    Everything that was not measured before is measured first; Ray is started for that if it is not initialised.

    Args:
        run: A finished run.
        progress: Called as the work goes on.
        images: Largest number of images in the gallery.

    Raises:
        RunError: The run is not finished.
        ConfigError: `images` is not positive.
    """
    if images < 1:
        raise ConfigError(f"images = {images}: must be at least 1; --images {IMAGES} is the default")
    dataset = Dataset.open(run.config.dataset)
    split = TEST if TEST in dataset.manifest["splits"] and dataset.count(TEST) else TRAIN
    _measure(run, dataset, split, progress)
    progress(1.0, "the page")
    page = build_page(_evidence(run, dataset, split, images))
    folder = run.folder / "report"
    folder.write_bytes(PAGE, page.encode())
    return f"{folder}/{PAGE}"


def _measure(run: Run, dataset: Dataset, split: str, progress: ProgressCallback) -> None:
    """Compute the predictions, scores, label-free quality and descriptor embeddings that do not exist yet."""
    folder, embedding = run.folder / "evaluation", embedding_step(run)
    missing: list[Callable[[ProgressCallback], Any]] = []
    if dataset.has_landmarks and split == TEST and not folder.is_file("metrics.json"):
        missing.append(lambda show: evaluate(run, show))
    if not run.unit(f"evaluation/{STAGE2}/{split}").is_sound():
        missing.append(lambda show: landmarks_of(run, dataset, split, show))
    if not folder.is_file("quality.json"):
        missing.append(lambda show: measure_quality(run, progress=show))
    if embedding is not None and not embedding.is_current():
        missing.append(lambda show: embed(run, dataset, embedding, show))
    if missing:
        with session(run.config.compute):
            for index, measure in enumerate(missing):
                measure(part_of(progress, index / len(missing), (index + 1) / len(missing)))


def _evidence(run: Run, dataset: Dataset, split: str, images: int) -> Evidence:
    folder, embedding = run.folder / "evaluation", embedding_step(run)
    quality, metrics = (folder.read_object(n) if folder.is_file(n) else None for n in ("quality.json", "metrics.json"))
    findings, edited = _findings(run, dataset, split, metrics or {}), read_point_set(point_folder(run.folder, EDITED))
    chosen = choose(findings.difficulty(), images, run.config.seed)
    return Evidence(
        run=f"{run.folder.parent.name}/{run.folder.name}",
        dataset=str(dataset.meta.get("name") or dataset.root.name),
        kind=run.config.method.kind,
        train_images=dataset.count(TRAIN),
        split=split,
        total=len(findings.ids),
        findings=findings,
        album=make_album(findings, chosen, _images(dataset, split, chosen)),
        flip_map=Channels.read(run.unit(STAGE2)).flip_map.tolist(),
        edited=edited,
        layout=_layout(run, findings, edited),
        quality=quality,
        metrics=metrics,
        rounds=rounds(run, dataset),
        merges=merges(run),
        embeddings=read_embeddings(run, embedding) if embedding is not None else (),
        rejected=int(dataset.manifest.get("rejected", 0)),
        choice=run.manifest(CHOICE),
        mirror=mirror_images(run, dataset),
        facts=_facts(run, dataset),
        config=yaml.safe_dump(run.config.to_dict(), sort_keys=False),
    )


def _findings(run: Run, dataset: Dataset, split: str, metrics: dict[str, Any]) -> Findings:
    landmarks = landmarks_of(run, dataset, split)
    columns = dataset.images(split).read_tables(dataset.parts(split), ["image_id", "width", "height"])
    ids = [name for table in columns for name in table["image_id"].to_pylist()]
    sizes = np.concatenate([crop_sizes(table) for table in columns])
    errors = None
    scored = metrics.get("per_image") or {}
    if split == TEST and scored.get("image_id"):
        by_id = dict(zip(scored["image_id"], scored["forward_nme"], strict=True))
        errors = np.array([np.nan if (e := by_id.get(name)) is None else e for name in ids], np.float64)
    return Findings(ids, sizes, landmarks.xy.astype(np.float64), landmarks.confidence, errors, landmarks.probability)


def _layout(run: Run, findings: Findings, edited: PointSet | None) -> str:
    """Return the picture of the mean layout of the landmarks, or of the points of an edit; empty if none was ever detected."""
    if not np.isfinite(findings.xy).any():
        return ""
    places = in_square(findings.xy, findings.sizes[:, None])
    shape = mean_shape(places, mirrored=facing_rule(run) is not None)
    if edited is not None:
        shape = edited.move(shape[None].astype(np.float32), 1)[0].astype(np.float64)
    return data_uri(layout_picture(shape, marks_of(edited, findings.landmarks, beside=True)), "image/png")


def _images(dataset: Dataset, split: str, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield the decoded crops of the split's images at ascending indices, one at a time."""
    starts = np.cumsum([0, *dataset.rows(split)])
    for part, first, last in zip(dataset.parts(split), starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= first) & (chosen < last)] - first
        if len(rows):
            for encoded in dataset.images(split).read_table(part, ["image"]).take(rows)["image"]:
                yield decode_crop(encoded)


def _facts(run: Run, dataset: Dataset) -> dict[str, str]:
    config = run.config
    manifests = [task.step.manifest() for task in record(run, dataset)]
    seconds = sum(m["seconds"] + m.get("extraction_seconds", 0) for m in manifests if m)
    versions = run.folder.read_object("versions.json") if run.folder.is_file("versions.json") else {}
    decided = run.number_format()
    return {
        "Written": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "Method": config.method.kind,
        "Generic keypoints": config.keypoints.detector,
        "Network input": f"{config.network.image_size} px",
        "Training clusters": str(config.method.clusters),
        "Rounds": f"{config.stage1.rounds} after a warm-up of {config.stage1.warmup_iterations:,} iterations",
        "Stage 2": f"{config.stage2.iterations:,} iterations",
        "Seed": str(config.seed),
        "Precision": decided.get("precision", config.compute.precision),
        "Time of the steps": str(datetime.timedelta(seconds=round(seconds))),
        **{name: versions[name] for name in ("ray-kplm", "python", "torch", "ray") if name in versions},
        "Licence of the images": str(dataset.meta.get("licence") or "not stated"),
    }
