"""Correspondence with a template (thesis chapter 4, docs/method.md 6): choose it, then align the keypoints of every image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.alignment import DriftOptions
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.correspondence.template_matching import choose_template, match_template, most_repeatable, pad_points
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.errors import CollapseError, ConfigError
from ray_kplm.imaging import coordinates
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.runtime.tasks import run_task
from ray_kplm.schemas import LABELS, NONE
from ray_kplm.steps.task import FORWARD_COST, LandmarkLabels, Task, metrics_of
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

TEMPLATE = "template.json"
_OF_TRAINING = ("distil_from", "rounds", "confidence")
"""Of the `template` options, those that trainings depend on."""


@dataclass(frozen=True, eq=False)
class Align(LandmarkLabels):
    """Labels of stage 2 where no descriptors correspond: the points of one image are the template of all others."""

    keypoints: Task

    @property
    def path(self) -> str:
        return "template/labels"

    @property
    def step(self) -> Step:
        options = asdict(self.context.config.template)
        reads = {
            **self.context.common_reads(),
            "landmarks": self.context.config.method.landmarks,
            "template": {name: value for name, value in options.items() if name not in _OF_TRAINING},
        }
        return self.context.run.step(self.path, "align", reads, {"points": self.keypoints.fingerprint})

    @property
    def cost(self) -> float:
        return self.context.image_count(self.context.stage2) * FORWARD_COST / 2

    def run(self, executor: Executor) -> None:
        context = self.context
        executor.begin(self, "aligning with a template")
        aligning = Aligning(context.config, context.images, self.keypoints.folder, self.folder)
        facts = align_points(aligning, context.selection(context.stage2), executor.progress.advance)
        executor.progress.set_points_per_image(facts["points_per_image"])
        text = f"{len(facts['label_counts'])} points of {facts['template']}, {facts['usable_images']} images fit"
        executor.finish(self, facts, metrics_of(facts), context.round_end(context.config.stage1.rounds), text)


@dataclass(frozen=True)
class Aligning:
    """All that an aligning worker needs. points: keypoints of the last round. labels: where their landmarks are written."""

    config: Config
    images: Folder
    points: Folder
    labels: Folder


def align_points(aligning: Aligning, selection: Selection, progress: ProgressCallback) -> dict[str, Any]:
    """Choose the template, and write `template.json` and the labels of all selected images. Return facts for the manifest.

    Raises:
        ConfigError: the configured image is not among them.
        CollapseError: too few images fit the template.
    """
    config, wanted = aligning.config, aligning.config.method.landmarks
    chosen = run_task(_choose, aligning, selection)
    aligning.labels.write_json(TEMPLATE, chosen)
    fewer = f"; it has no more, method.landmarks = {wanted}" if len(chosen["xy"]) < wanted else ""
    progress(0.3, f"template: {len(chosen['xy'])} points of {chosen['image_id']}{fewer}")
    pool = Pool(config.compute.detect_workers or config.compute.extract_workers)
    parts = map_parts(_AlignPart, {"aligning": aligning}, selection, pool, part_of(progress, 0.3, 1.0))
    images = sum(int(p["images"]) for p in parts)
    usable = sum(int(p["usable"]) for p in parts)
    counts = np.sum([p["counts"] for p in parts], axis=0)
    if usable < config.limits.min_image_share * images:
        raise CollapseError(
            f"{usable} of {images} images have template.min_matched = {config.template.min_matched} of the template's "
            f"{len(counts)} points; look at template.distance, template.image and detection.points_per_landmark"
        )
    return {
        "images": images,
        "usable_images": usable,
        "template": chosen["image_id"],
        "template_score": chosen["score"],
        "points_per_image": float(counts.sum() / max(images, 1)),
        "matched_per_image": sum(int(p["matched"]) for p in parts) / max(usable, 1),
        "label_counts": counts.tolist(),
    }


def _choose(aligning: Aligning, selection: Selection) -> dict[str, Any]:
    """Choose the template: image_id, xy (K, 2) in the input frame, score. K is method.landmarks, or fewer if the image has."""
    config = aligning.config
    options, count = config.template, config.method.landmarks
    drift, farthest = DriftOptions(options.outliers), options.distance * config.network.image_size
    seed = (config.seed, 41)
    sample = selection.sample(max(options.sample, options.candidates), seed, SAMPLE_PARTS)
    read = [_read(aligning, part, rows) for part, rows in zip(sample.parts, sample.rows, strict=True)]
    found = [entry for part in read for entry in part]
    if options.image:
        template = _named(aligning, selection, options.image)
        others = pad_points([xy for name, xy in found if name != options.image])
        kept = most_repeatable(template, others, count, options=drift, max_distance=farthest)
        return {"image_id": options.image, "xy": kept.xy.tolist(), "score": kept.score}
    points = [xy for _, xy in found]
    counts = np.array([len(p) for p in points])
    able = np.flatnonzero(counts >= max(3, min(count, np.median(counts))))
    if not len(able):
        raise CollapseError("no image has three keypoints; look at detection.points_per_landmark")
    candidates = np.random.default_rng(seed).permutation(able)[: options.candidates]
    best, kept = choose_template(points, candidates, count, options=drift, max_distance=farthest)
    return {"image_id": found[best][0], "xy": kept.xy.tolist(), "score": kept.score}


def _named(aligning: Aligning, selection: Selection, image_id: str) -> NDArray[np.float64]:
    """Read the keypoints (N, 2), input frame, of an image. Raise ConfigError if it is not selected, or has too few."""
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        ids = aligning.images.read_table(part, ["image_id"]).take(rows)["image_id"].to_pylist()
        if image_id in ids:
            row = ids.index(image_id)
            xy: NDArray[np.float64] = _read(aligning, part, rows)[row][1]
            if len(xy) >= 3:
                return xy
            raise ConfigError(
                f"template.image = {image_id!r}: has {len(xy)} keypoints, and a template needs 3; name another image, or leave "
                f"template.image empty to have one chosen"
            )
    raise ConfigError(f"template.image = {image_id!r}: no such image; the last one is {ids[-1]!r}")


def _read(aligning: Aligning, part: str, rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.float64]]]:
    """Read the ids and the keypoints (N, 2), input frame, of rows of a part."""
    side = aligning.config.network.image_size
    table = aligning.images.read_table(part, ["image_id", "width", "height"]).take(rows)
    points = aligning.points.read_table(part, ["image_id", "xy"])
    by_image = dict(zip(points["image_id"].to_pylist(), points["xy"].to_pylist(), strict=True))
    found = []
    for name, width, height in zip(*(table[c].to_pylist() for c in ("image_id", "width", "height")), strict=True):
        xy = np.asarray(by_image.get(name, []), np.float64).reshape(-1, 2)
        found.append((name, coordinates.apply(coordinates.crop_to_input(width, height, side), xy)))
    return found


class _AlignPart:
    """A worker that gives the keypoints of a part their landmarks."""

    def __init__(self, aligning: Aligning) -> None:
        self._work = aligning
        self._template = np.array(aligning.labels.read_json(TEMPLATE)["xy"])

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        config = self._work.config
        options, side = config.template, config.network.image_size
        found = _read(self._work, part, rows)
        named = match_template(
            self._template,
            pad_points([xy for _, xy in found]),
            options=DriftOptions(options.outliers),
            max_distance=options.distance * side,
            min_matched=options.min_matched,
        )
        sizes = self._work.images.read_table(part, ["width", "height"]).take(rows)
        maps = [
            coordinates.invert(coordinates.crop_to_input(w, h, side))
            for w, h in zip(sizes["width"].to_pylist(), sizes["height"].to_pylist(), strict=True)
        ]
        inside = ((named.xy >= -0.5) & (named.xy <= side - 0.5)).all(axis=-1) & named.usable[:, None]
        image, landmark = np.nonzero(inside)
        counts = inside.sum(axis=1)
        in_crop = [coordinates.apply(a, xy) for a, xy in zip(maps, named.xy, strict=True)]
        xy = np.stack(in_crop)[image, landmark] if len(image) else np.zeros((0, 2))
        own = (named.index != NONE)[image, landmark]
        columns = [
            pa.array([name for name, _ in found], pa.string()),
            ragged_points(xy, counts),
            ragged(own.astype(np.float32), counts),  # 1: the image's own point, 0: the template's
            ragged(landmark.astype(np.int16), counts),
            ragged(landmark.astype(np.int16), counts),
            ragged(np.full(len(landmark), NONE, np.int16), counts),
        ]
        self._work.labels.write_table(part, pa.Table.from_arrays(columns, schema=LABELS))
        return {
            "images": len(found),
            "usable": int(named.usable.sum()),
            "matched": int(own.sum()),
            "counts": inside.sum(axis=0),
        }
