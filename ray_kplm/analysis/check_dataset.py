"""Whether a dataset suits the discovery of landmarks, before any training: `kplm check`.

All images are looked at for repeats, in one pass; everything else is measured on a seeded sample, so that most of the time does
not grow with the dataset, and memory by 264 bytes an image. Nothing is written, and Ray is not needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.check_suggestions import suggest
from ray_kplm.config import Config
from ray_kplm.correspondence.facing import MirrorEvidence, facings, fit_template, mirror_evidence
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection, full_selection
from ray_kplm.dense_features import describe_images
from ray_kplm.dense_features.feature_map import GRID
from ray_kplm.dense_features.hog import BINS, CELL, Hog
from ray_kplm.errors import DataError
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.methods.facing import DOUBTFUL, cut
from ray_kplm.methods.inputs import Inputs, make_inputs
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.screening.common_place import common_place, effective_number, fixed_background
from ray_kplm.screening.image_statistics import STATISTICS, image_statistics
from ray_kplm.screening.near_duplicates import Prints, Repeats, repeats
from ray_kplm.screening.object_windows import CELLS, ObjectWindow, find_objects
from ray_kplm.screening.picture_detail import border_details, detail_side
from ray_kplm.screening.verdict import BLURRED_SIDE, FOUND_CONTRAST, Finding, Level, Measures, findings, verdict
from ray_kplm.storage import Folder

SAMPLE_IMAGES = 1_000
"""Images of the sample by default."""
_SAMPLE = 61
"""Of the seed of the sample."""
_WINDOW_IMAGES = 400
"""Images of the sample in which windows that look alike are searched."""
_BATCH = 64
"""Images that are decoded at a time."""
_FLAT, _CLIPPED = 0.05, 0.6
"""Contrast below which an image shows hardly anything, and share of black or white pixels above which it does."""
_EXAMPLES = 6
"""Images that are shown for a finding."""


@dataclass(frozen=True)
class Row:
    """An image of the dataset: its split, part and row there."""

    split: str
    part: str
    row: int


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        dataset: Its name.
        images: Number of images of each split.
        sample: Number of training images of the sample.
        measures: All figures.
        mirror: The evidence for what a mirror image is.
        findings: Of all rules, the worst first.
        level: The verdict.
        suggested: See `check_suggestions.suggest`.
        examples: For the names of findings and `sample`: captions and the images that show it, with boxes (n, 4) as shares of
            the image's width and height.
        seconds: Time of the check.
    """

    dataset: str
    images: dict[str, int]
    sample: int
    measures: Measures
    mirror: MirrorEvidence
    findings: list[Finding]
    level: Level
    suggested: dict[str, Any]
    examples: dict[str, list[tuple[str, Row, NDArray[np.float64]]]]
    seconds: float

    def figures(self) -> dict[str, Any]:
        """Return all but the examples as JSON values; a figure that is undefined is None."""
        return {
            "verdict": self.level.word,
            "dataset": self.dataset,
            "images": self.images,
            "sample": self.sample,
            "findings": [
                {
                    "name": f.name, "level": f.level.word, "figure": _number(f.figure), "bound": _number(f.bound),
                    "text": f.text, "way_out": f.way_out,
                }
                for f in self.findings
            ],
            "measures": {name: _number(value) for name, value in asdict(self.measures).items()},
            "mirror_evidence": asdict(self.mirror),
            "suggested": self.suggested,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def check_dataset(
    dataset: Dataset,
    config: Config,
    *,
    images: int = SAMPLE_IMAGES,
    timed: bool = True,
    progress: ProgressCallback = ignore_progress,
) -> Check:
    """Measure a dataset and judge it.

    Args:
        dataset: The dataset.
        config: Of the run that is thought of: for the suggested numbers and the time.
        images: Size of the sample.
        timed: Whether some training steps are timed.
        progress: Called as the work goes on.

    Raises:
        DataError: There are too few training images to measure anything, or a part is damaged.
    """
    started = time.monotonic()
    cv2.setNumThreads(1)
    if dataset.count(TRAIN) < 4:
        raise DataError(
            f"{dataset.root}: {dataset.count(TRAIN)} training images; at least 4 are needed to compare them, add images"
        )
    prints, rows = {}, {}
    splits = [split for split in (TRAIN, TEST) if split in dataset.manifest["splits"]]
    for number, split in enumerate(splits):
        share = part_of(progress, 0.25 * number / len(splits), 0.25 * (number + 1) / len(splits))
        prints[split], rows[split] = _prints(dataset, split, share)
    repeated = repeats(prints[TRAIN], prints.get(TEST, Prints.of([])))
    progress(0.25, "repeats found")
    selection = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    selection = selection.sample(images, (config.seed, _SAMPLE), SAMPLE_PARTS)
    sample = _measure_sample(dataset.images(TRAIN), selection, config, part_of(progress, 0.25, 0.45))
    progress(0.45, "windows that look alike")
    window = find_objects(np.stack(sample.maps), np.stack(sample.upside_down), config.seed)
    progress(0.6, "which way objects face")
    mirror, doubtful = _mirror(sample)
    measures = _measures(dataset, repeated, sample, window, mirror, doubtful)
    found = findings(measures)
    suggested = suggest(
        dataset, config, selection, measures.object_side, measures.detail, timed, part_of(progress, 0.65, 1.0)
    )
    progress(1.0, "done")
    return Check(
        dataset=str(dataset.meta.get("name") or dataset.root.name),
        images={split: dataset.count(split) for split in splits},
        sample=selection.images,
        measures=measures,
        mirror=mirror,
        findings=found,
        level=verdict(found),
        suggested=suggested,
        examples=_examples(rows, repeated, sample, window, found),
        seconds=time.monotonic() - started,
    )


def _prints(dataset: Dataset, split: str, progress: ProgressCallback) -> tuple[Prints, list[Row]]:
    """Return the prints of all images of a split, and where each of them is; a part is in memory at a time."""
    pieces, rows, parts = [], [], dataset.parts(split)
    for number, part in enumerate(parts):
        encoded = dataset.images(split).read_table(part, ["image"])["image"]
        pieces.append(Prints.of([decode_crop(one) for one in encoded]))
        rows += [Row(split, part, row) for row in range(len(encoded))]
        progress((number + 1) / len(parts), f"looking for repeats: {len(rows):,} {split} images")
    return Prints.joined(pieces), rows


@dataclass
class _Sample:
    """What is kept of the sample's images."""

    rows: list[Row] = field(default_factory=list)
    statistics: list[NDArray[np.float64]] = field(default_factory=list)
    details: list[int] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    borders: list[NDArray[np.float32]] = field(default_factory=list)
    boxes: list[NDArray[np.float64] | None] = field(default_factory=list)  # shares of the width and height
    object_sides: list[float] = field(default_factory=list)
    whole: list[NDArray[np.float32]] = field(default_factory=list)  # HOG over the grid, (B, D)
    plain: list[NDArray[np.float32]] = field(default_factory=list)  # of the object, as `steps.facing` describes it
    mirrored: list[NDArray[np.float32]] = field(default_factory=list)
    maps: list[NDArray[np.float32]] = field(default_factory=list)  # (CELLS, CELLS, BINS)
    upside_down: list[NDArray[np.float32]] = field(default_factory=list)

    def joined(self, name: str) -> NDArray[np.float32]:
        """Return descriptors of all images as one array."""
        return np.concatenate(getattr(self, name))


def _measure_sample(images: Folder, selection: Selection, config: Config, progress: ProgressCallback) -> _Sample:
    sample, chosen = _Sample(), set(_spread(selection.images, _WINDOW_IMAGES).tolist())
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        table = images.read_table(part, ["image_id", "image", "box"]).take(rows)
        for inputs in make_inputs(table, np.arange(len(rows)), config):
            _add_objects(sample, inputs)
        for start in range(0, len(rows), _BATCH):
            batch = table.slice(start, _BATCH)
            pictures = [decode_crop(one) for one in batch["image"]]
            _add(sample, pictures, batch["box"].to_pylist(), chosen)
            sample.rows += [Row(TRAIN, part, int(row)) for row in rows[start : start + _BATCH]]
        progress(len(sample.rows) / selection.images, f"{len(sample.rows):,} images measured")
    return sample


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` indices of `count`, in even steps."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _add(
    sample: _Sample, pictures: Sequence[NDArray[np.uint8]], boxes: Sequence[list[float] | None], chosen: set[int]
) -> None:
    """Add the measures of a batch of images; maps of those whose index is chosen."""
    hog = Hog()
    for picture, box in zip(pictures, boxes, strict=True):
        index, (height, width) = len(sample.statistics), picture.shape[:2]
        sample.statistics.append(image_statistics(picture))
        sample.details.append(detail_side(picture))
        sample.sides.append(max(height, width))
        sample.borders.append(border_details(picture))
        sample.boxes.append(None if box is None else np.array(box, np.float64) / [width, height, width, height])
        if box is not None:
            x0, y0, x1, y1 = np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1])
            sample.object_sides.append(float(max(x1 - x0, y1 - y0) + 1) / max(height, width))
        if index in chosen:
            square = cv2.resize(picture, (CELLS * CELL, CELLS * CELL), interpolation=cv2.INTER_AREA)
            plain, turned = hog(np.stack([square, square[::-1]]))
            sample.maps.append(plain)
            sample.upside_down.append(turned)
    sample.whole.append(describe_images(hog, pictures))


def _add_objects(sample: _Sample, inputs: Inputs) -> None:
    """Describe the objects of a batch and their mirror images, as the step `facing` of a run does."""
    objects = [
        cut(image, box if np.isfinite(box).all() else None)
        for image, box in zip(inputs.images, inputs.boxes, strict=True)
    ]
    sample.plain.append(describe_images(Hog(), objects))
    sample.mirrored.append(describe_images(Hog(), objects, mirrored=True))


def _mirror(sample: _Sample) -> tuple[MirrorEvidence, float]:
    """Return what a run's step `facing` would find, and the share of doubtful facings; NaN where it needs none."""
    plain, mirrored = sample.joined("plain"), sample.joined("mirrored")
    evidence = mirror_evidence(plain, mirrored)
    if not evidence.seen_from_the_side:
        return evidence, float("nan")
    facing = facings(fit_template(plain, mirrored).half_log_odds)
    return evidence, float((np.abs(facing) < DOUBTFUL).mean())


def _measures(
    dataset: Dataset,
    repeated: Repeats,
    sample: _Sample,
    window: ObjectWindow,
    mirror: MirrorEvidence,
    doubtful: float,
) -> Measures:
    statistics, details = np.stack(sample.statistics), np.array(sample.details)
    whole, sides = sample.joined("whole"), sample.object_sides
    seen = window.side if window.contrast >= FOUND_CONTRAST else float("nan")
    return Measures(
        train=dataset.count(TRAIN),
        distinct=repeated.distinct,
        repeated=repeated.repeated,
        largest_repeat=repeated.largest,
        leaked=repeated.leaked,
        side=float(np.median(sample.sides)),
        detail=float(np.median(details)),
        blurred=float((details < BLURRED_SIDE).mean()),
        flat=float((statistics[:, STATISTICS.index("contrast")] < _FLAT).mean()),
        clipped=float((statistics[:, STATISTICS.index("clipped")] > _CLIPPED).mean()),
        boxes=len(sides) / len(details),
        object_side=float(np.median(sides)) if len(sides) > len(details) / 2 else seen,
        place=common_place(whole.reshape(len(whole), GRID, GRID, BINS)),
        window_contrast=window.contrast,
        window_side=window.side,
        objects=window.objects,
        background=fixed_background(np.stack(sample.borders)),
        variety=effective_number(whole),
        mirror="facing" if mirror.seen_from_the_side else "partners",
        doubtful=0.0 if np.isnan(doubtful) else doubtful,
    )


_WHOLE = np.zeros((0, 4))


def _examples(
    rows: dict[str, list[Row]], repeated: Repeats, sample: _Sample, window: ObjectWindow, found: Sequence[Finding]
) -> dict[str, list[tuple[str, Row, NDArray[np.float64]]]]:
    """Return images that show the findings that are not suitable, and some of the sample."""
    details, statistics = np.array(sample.details), np.stack(sample.statistics)
    contrast = statistics[:, STATISTICS.index("contrast")]
    some = _spread(len(sample.rows), 10)

    def of(indices: NDArray[np.integer[Any]], captions: Sequence[str]) -> list[tuple[str, Row, NDArray[np.float64]]]:
        return [
            (caption, sample.rows[i], _WHOLE if sample.boxes[i] is None else np.reshape(sample.boxes[i], (1, 4)))
            for i, caption in zip(indices.tolist(), captions, strict=True)
        ]

    every = of(some, [""] * len(some))
    softest, flattest = (np.argsort(values, kind="stable")[:_EXAMPLES] for values in (details, contrast))
    shown = {
        "repeats": [
            (f"group {number + 1}", rows[TRAIN][row], _WHOLE)
            for number, group in enumerate(repeated.examples)
            for row in group
        ][:12],
        "leak": [
            pair
            for test, train in repeated.leaks
            for pair in (("test", rows[TEST][test], _WHOLE), ("training", rows[TRAIN][train], _WHOLE))
        ],
        "detail": of(softest, [f"{details[i]} px" for i in softest]),
        "blur": of(softest, [f"{details[i]} px" for i in softest]),
        "exposure": of(flattest, [f"contrast {contrast[i]:.2f}" for i in flattest]),
        "several_objects": _window_examples(sample, window),
        **dict.fromkeys(
            ("place", "object_size", "background", "size", "variety", "images", "mirror"), every[:_EXAMPLES]
        ),
    }
    shown["images"] = shown["repeats"] or shown["images"]
    bad = {one.name for one in found if one.level != Level.SUITABLE}
    return {"sample": every, **{name: pictures for name, pictures in shown.items() if name in bad}}


def _window_examples(sample: _Sample, window: ObjectWindow) -> list[tuple[str, Row, NDArray[np.float64]]]:
    """Return the images in which most windows look alike, with these."""
    indices = _spread(len(sample.rows), _WINDOW_IMAGES)
    second = indices[len(indices) // 2 :]
    order = np.argsort([-len(places) for places in window.places], kind="stable")[:_EXAMPLES]
    return [(f"{len(window.places[i])} found", sample.rows[second[i]], window.places[i]) for i in order.tolist()]


def pictures_of(dataset: Dataset, rows: Sequence[Row]) -> Iterator[NDArray[np.uint8]]:
    """Yield the crops of some images."""
    for row in rows:
        table = dataset.images(row.split).read_table(row.part, ["image"])
        yield decode_crop(table["image"][row.row])
