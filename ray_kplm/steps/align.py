"""Correspondence with a template (chapter 4): choose it, then name every image's points, part by part (docs/method.md 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.alignment import DriftOptions
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.correspondence.template_matching import choose_template, match_template, most_repeatable, pad_points
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection
from ray_kplm.errors import CollapseError, ConfigError, RunError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.draw import draw_landmarks, encode_png
from ray_kplm.methods import build_method
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.run import Run
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.runtime.tasks import run_task
from ray_kplm.schemas import LABELS, NONE, TRAIN
from ray_kplm.steps.graph import Steps
from ray_kplm.storage import Folder

TEMPLATE = "template.json"


@dataclass(frozen=True)
class Aligning:
    """All an aligning worker needs. points: keypoints of the last round; labels: where named ones go."""

    config: Config
    images: Folder
    points: Folder
    labels: Folder


def align_points(aligning: Aligning, selection: Selection, progress: ProgressCallback) -> dict[str, Any]:
    """Choose the template, write `template.json` and the labels of all selected images; returns what was found.

    Raises ConfigError if the configured image is not among them, CollapseError if too few images fit the template.
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
    """The template: image_id, xy (K, 2) in the input frame, score. K is method.landmarks, fewer where the image has fewer."""
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
    """Keypoints (N, 2), in the input frame, of an image. Raises ConfigError if it is not among the selected, or has too few."""
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        ids = aligning.images.read_table(part, ["image_id"]).take(rows)["image_id"].to_pylist()
        if image_id in ids:
            row = ids.index(image_id)
            xy = _read(aligning, part, rows)[row][1]
            if len(xy) >= 3:
                return xy
            raise ConfigError(
                f"template.image = {image_id!r}: has {len(xy)} keypoints, and a template needs three; name another image, or "
                f"none: one is chosen then"
            )
    raise ConfigError(f"template.image = {image_id!r}: no such image; the last one is {ids[-1]!r}")


def _read(aligning: Aligning, part: str, rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.float64]]]:
    """Names and keypoints, in the input frame, of a part's rows."""
    side = aligning.config.network.image_size
    table = aligning.images.read_table(part, ["image_id", "width", "height"]).take(rows)
    points = aligning.points.read_table(part, ["image_id", "xy"])
    of = dict(zip(points["image_id"].to_pylist(), points["xy"].to_pylist(), strict=True))
    found = []
    for name, width, height in zip(*(table[c].to_pylist() for c in ("image_id", "width", "height")), strict=True):
        xy = np.asarray(of.get(name, []), np.float64).reshape(-1, 2)
        found.append((name, coordinates.apply(coordinates.crop_to_input(width, height, side), xy)))
    return found


class _AlignPart:
    """Names the points of a part's images."""

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


def picture(run: Run, image_id: str | None = None) -> tuple[str, bytes]:
    """An image's name, and the image with its numbered points as PNG: the run's template, or any image of its last round.

    Raises RunError while the rounds are not finished, ConfigError for an unknown image.
    """
    dataset = Dataset.open(run.config.dataset)
    steps = Steps(run, dataset, build_method(run.config))
    if steps.aligned is None:
        raise RunError(f"{run.folder}: method.kind = {run.config.method.kind!r} has no template")
    if steps.labels[-1].manifest() is None:
        raise RunError(f"{run.folder}: its rounds are not finished; kplm train continues them")
    if image_id is None:
        if not steps.aligned.folder.is_file(TEMPLATE):
            raise RunError(f"{run.folder}: no template yet; name an image, or continue with kplm train")
        image_id = str(steps.aligned.folder.read_json(TEMPLATE)["image_id"])
    selection = steps.selection(run.config.stage1.rounds + 1)
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        table = dataset.images(TRAIN).read_table(part, ["image_id", "image"]).take(rows)
        names = table["image_id"].to_pylist()
        if image_id in names:
            points = steps.labels[-1].folder.read_table(part, ["xy"])["xy"].to_pylist()[names.index(image_id)]
            image = decode_crop(table["image"][names.index(image_id)])
            drawn = draw_landmarks(image, np.asarray(points, np.float64).reshape(-1, 2), scale=4, numbers=True)
            return image_id, encode_png(drawn)
    raise ConfigError(f"{image_id!r}: no such image in {run.folder}'s last round; for example {names[0]!r}")
