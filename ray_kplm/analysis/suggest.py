"""Choice of the images to label, written ready to correct: `kplm suggest`.

<out>/images/...                    the chosen images
<out>/label_studio/tasks.json       tasks of Label Studio with the run's points, and config.xml
<out>/suggested.png                 the chosen images with these points
<out>/coco.json                     COCO keypoints, images and points; written last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm import schemas
from ray_kplm.analysis.contact_sheet import marks_with
from ray_kplm.analysis.suggestion_pool import DatasetPool, FolderPool, Pool, file_paths
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.given_images import rgb_of
from ray_kplm.detectors.loading import file_form
from ray_kplm.detectors.stored import detector_fingerprint, is_run, landmark_predictor
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.imaging.draw import contact_sheet, encode_png
from ray_kplm.inference.export import coco, label_studio
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.labels.reading import named_images
from ray_kplm.landmark_detector import LandmarkDetector, Landmarks
from ray_kplm.methods.predictors import LandmarkPredictor, LandmarkPredictorFactory, OneWayPredictor
from ray_kplm.network.compute import Placement, choose_device
from ray_kplm.points.layout import Layout
from ray_kplm.points.selection import DEFAULT, STRATEGIES, Strategy, image_features, select
from ray_kplm.points.stored import LANDMARKS
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.ranges import COUNTS, Seed, check_ranges
from ray_kplm.run import Run, versions
from ray_kplm.storage import Folder

IMAGES, SHEET = "images", "suggested.png"
_DESCRIBED = 256
"""Numbers that the descriptors of an image are reduced to by a random projection, which keeps distances (Johnson and
Lindenstrauss, 1984)."""
_TILE, _COLUMNS = 200, 5


@dataclass(frozen=True)
class SuggestOptions:
    """Which images to choose, and from which."""

    count: Annotated[int, COUNTS] = 20
    """Images to choose."""
    by: Strategy = DEFAULT
    """How they are chosen, `points.selection.STRATEGIES`."""
    images: str | None = None
    """A folder of images to choose from; None: the run's training images."""
    labeled: tuple[str, ...] = ()
    """Files of annotations: images that they name are left out."""
    points: str | None = None
    """Which points of the run are written to be corrected: see `LandmarkDetector.load`."""
    names: tuple[str, ...] = ()
    """Names of the user's own points: the tasks have these to be set, and no points of the run."""
    candidates: Annotated[int, COUNTS] = 5000
    """Images to choose from at most, drawn at random; bounds time and memory."""
    seed: Seed = 0
    """Of what is drawn."""

    def __post_init__(self) -> None:
        check_ranges(self, "suggest: ")
        if self.by not in STRATEGIES:
            raise ConfigError(f"--by {self.by}: choose from {', '.join(STRATEGIES)}")
        if len(set(self.names)) < len(self.names) or not all(name.strip() for name in self.names):
            raise ConfigError(f"--names {','.join(self.names)}: give different names")


@dataclass(frozen=True)
class SuggestReport:
    """What was chosen.

    Attributes:
        out: Folder of what was written.
        images: Id of each chosen image -> its path below `out`.
        by: How they were chosen.
        candidates: Number of images that they were chosen from.
        left_out: Number of images that are labelled already.
        rejected: Images that could not be used, with the reason.
        go_on: What the user does next, a line each.
    """

    out: str
    images: Mapping[str, str]
    by: str
    candidates: int
    left_out: int
    rejected: tuple[tuple[str, str], ...]
    go_on: tuple[str, ...]

    def __str__(self) -> str:
        labelled = f", without {self.left_out} that are labelled" if self.left_out else ""
        lines = [f"{self.out}: {len(self.images)} of {self.candidates} images{labelled}, chosen by {self.by}"]
        if self.rejected:
            name, reason = self.rejected[0]
            lines.append(f"{len(self.rejected)} images cannot be used, e.g. {name}: {reason}")
        return "\n".join([*lines, *self.go_on])

    def figures(self) -> dict[str, Any]:
        """Return what `kplm suggest --json` prints."""
        return {**asdict(self), "images": dict(self.images), "rejected": [list(row) for row in self.rejected]}


def suggest(
    run: Run,
    out: str,
    options: SuggestOptions | None = None,
    *,
    device: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> SuggestReport:
    """Choose images to label and write them with the run's points. Ray is not needed.

    Args:
        run: A finished run, or the folder of an exported detector, which needs `options.images`.
        out: A new folder or URI.
        options: The choice.
        device: Of the network: `cpu`, `cuda` or `mps`; by default a GPU if one is available.
        progress: Called as the work goes on.

    Raises:
        RunError: The run is not finished, or `out` holds suggestions already.
        DataError: There is no image to choose from.
        ConfigError: The detector is a file, or an option is invalid.
    """
    options, target = options or SuggestOptions(), Folder.at(out)
    if target.is_file(coco.FILE):
        raise RunError(f"{out}: holds suggestions, perhaps corrected ones; choose a new folder, or remove {coco.FILE}")
    pool = _pool(run, options)
    rows, left_out = _unlabelled(pool, options)
    drawn = np.random.default_rng(options.seed).permutation(rows)[: options.candidates]
    seen = describe(pool, np.sort(drawn), run, device, progress)
    chosen = seen.rows[select(seen.features, seen.uncertainty, options.count, options.by, options.seed)]
    images = _write(run, pool, chosen.tolist(), target, options, device)
    progress(1.0, f"{len(images)} images: {target}")
    return SuggestReport(
        str(target), images, options.by, len(rows), left_out, tuple(pool.rejected), _go_on(run, target, options)
    )


def _pool(run: Run, options: SuggestOptions) -> Pool:
    if file_form(str(run.folder)):
        raise ConfigError(
            f"{run.folder}: images are chosen by a run or an exported folder, and not by a file; name one"
        )
    if options.images is not None:
        return FolderPool(options.images)
    if not is_run(run):
        raise ConfigError(f"{run.folder}: has no training images; name a folder of images by --images")
    return DatasetPool(Dataset.open(run.config.dataset))


def _unlabelled(pool: Pool, options: SuggestOptions) -> tuple[NDArray[np.int64], int]:
    """Return the images that no file of annotations names, and the number of others."""
    labelled = {end for uri in options.labeled for name in named_images(uri) for end in _ends(name)}
    rows = [row for row, name in enumerate(pool.names) if labelled.isdisjoint({name, *file_paths(name)})]
    if not rows:
        raise DataError(f"all {len(pool.names)} images are labelled; name a folder with others by --images")
    return np.array(rows), len(pool.names) - len(rows)


def _ends(name: str) -> list[str]:
    """Return a path and all ends of it that begin with a folder or a file."""
    parts = name.replace("\\", "/").split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


@dataclass(frozen=True, eq=False)
class Described:
    """What images are told apart by.

    Attributes:
        rows: (N,), which of the pool's images.
        features: (N, D), see `points.selection.image_features`.
        uncertainty: (N,), 0 to 1: how far confidences are below the median of their landmark, a mean over landmarks.
        turned: (N,), which images face the other way, of a category that is seen from the side.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    turned: NDArray[np.bool_]


def describe(
    pool: Pool,
    rows: NDArray[np.int64],
    run: Run,
    device: str | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Described:
    """Return what some images of a pool, ascending rows, are told apart by.

    Raises:
        DataError: None of them can be used.
    """
    make, config = landmark_predictor(run, LANDMARKS if is_run(run) else None), run.resolved
    predictor = _alone(make, Placement.choose(config.compute, choose_device(device)))
    kept, xy, confidence, descriptors, turned = [], [], [], [], []
    projection: NDArray[np.float32] | None = None
    done = 0
    for batch in pool.batches(rows, config):
        seen = predictor.describe(batch.images, batch.boxes)
        flat = seen.descriptors.reshape(len(batch.rows), -1)
        if projection is None:
            shape = (flat.shape[1], _DESCRIBED)
            projection = np.random.default_rng(0).normal(scale=_DESCRIBED**-0.5, size=shape).astype(np.float32)
        kept.append(batch.rows)
        xy.append((seen.xy + 0.5) / config.network.image_size)
        confidence.append(seen.confidence)
        turned.append(seen.turned)
        descriptors.append(flat @ projection)
        done += len(batch.rows)
        progress(0.9 * done / len(rows), f"landmarks of {len(rows)} images")
    if not kept:
        name, reason = pool.rejected[0]
        raise DataError(f"none of {len(rows)} images can be used, e.g. {name}: {reason}")
    features = image_features(np.concatenate(xy), np.concatenate(descriptors))
    heights = np.concatenate(confidence).astype(np.float64)
    relative = heights / np.median(heights, axis=0).clip(1e-6)
    return Described(np.concatenate(kept), features, 1 - relative.clip(0, 1).mean(axis=1), np.concatenate(turned))


def _alone(make: LandmarkPredictorFactory, placement: Placement) -> LandmarkPredictor | OneWayPredictor:
    """Return the predictor of the landmarks that all points are made of."""
    predictor = replace(make, points=None)(placement)
    assert isinstance(predictor, (LandmarkPredictor, OneWayPredictor))
    return predictor


def _write(
    run: Run, pool: Pool, chosen: list[int], target: Folder, options: SuggestOptions, device: str | None
) -> dict[str, str]:
    """Write the chosen images with their points; return the path of each id below the folder."""
    detector = LandmarkDetector.load(str(run.folder), device=device, points=options.points)
    paths, pictures, seen = dict[str, str](), list[NDArray[np.uint8]](), list[Landmarks]()
    for row in chosen:
        file = pool.file(row)
        paths[pool.names[row]] = f"{IMAGES}/{_unique(file.path, paths)}"
        target.write_bytes(paths[pool.names[row]], file.content)
        pictures.append(rgb_of(file.content))
        seen += detector.predict(pictures[-1])
    found = _predictions(run, list(paths.values()), pictures, seen, detector.layout, options)
    label_studio.write(found, target)
    layout = detector.layout
    is_named = layout.names != Layout.of("", layout.partners).names
    title = f"{len(chosen)} images to label, chosen by {options.by}"
    well = [one.found.astype(np.float32) for one in seen]
    sheet = contact_sheet(
        pictures,
        [one.xy for one in seen],
        confidence=well,
        columns=_COLUMNS,
        tile=_TILE,
        title=title,
        marks=marks_with(layout) if is_named else None,
    )
    target.write_bytes(SHEET, encode_png(sheet))
    coco.write(found, target)
    return paths


def _unique(path: str, others: Mapping[str, str]) -> str:
    """Return a path that none of the others has: two ids may differ in signs that paths do not have."""
    taken = {other.partition("/")[2] for other in others.values()}
    stem, dot, extension = path.rpartition(".")
    names = (path, *(f"{stem}_{number}{dot}{extension}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _predictions(
    run: Run,
    paths: list[str],
    pictures: list[NDArray[np.uint8]],
    seen: list[Landmarks],
    layout: Layout,
    options: SuggestOptions,
) -> Predictions:
    """Return the points as formats take them; of own names, none of them is set."""
    if options.names:
        layout, unset = (
            Layout.of(layout.category, [schemas.NONE] * len(options.names), options.names),
            len(options.names),
        )
        missing, none = np.full((unset, 2), np.nan, np.float32), np.zeros(unset, np.float32)
        seen = [Landmarks(missing, none, none, none.astype(bool)) for _ in seen]
    rows = [
        {
            "image_id": path,
            "xy": one.xy.tolist(),
            "confidence": one.confidence.tolist(),
            "probability": None if np.isnan(one.probability).any() else one.probability.tolist(),
            "found": one.found.tolist(),
            "width": rgb.shape[1],
            "height": rgb.shape[0],
        }
        for path, rgb, one in zip(paths, pictures, seen, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schemas.SOURCE_LANDMARKS)
    fingerprint = detector_fingerprint(run, options.points)
    found = Predictions(lambda: [table], layout, detector=fingerprint, version=versions().get("ray-kplm", ""))
    return found if options.names else found.with_skeleton()


def _go_on(run: Run, target: Folder, options: SuggestOptions) -> tuple[str, ...]:
    label_file = f"{target}/{coco.FILE}"
    what = "set your points" if options.names else "correct the points"
    return (
        f"look at {target}/{SHEET}; {what} in a tool that reads COCO keypoints ({label_file}) or in Label Studio "
        f"({target}/{label_studio.FOLDER}), then:",
        f"kplm adapt {run.folder} {label_file} --name mine",
    )
