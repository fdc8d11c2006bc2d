"""A finished run as a folder to share: detector, model card and pictures. `kplm push`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.contact_sheet import choose_images, draw_sheet, predict_images_of
from ray_kplm.analysis.predictions import stored_landmarks_of
from ray_kplm.analysis.share_points import has_own_network, how_made, named_points
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.detectors.pretrained import pretrained_predictor
from ray_kplm.detectors.pretrained_config import CARD, MODEL_CONFIG, WEIGHTS, is_pretrained, read_description
from ray_kplm.detectors.stored import export_pretrained, facing_rule, is_run, landmark_predictor
from ray_kplm.errors import DataError, RunError, StorageError
from ray_kplm.evaluation.canonical_frame import mean_shape
from ray_kplm.imaging.coordinates import in_square
from ray_kplm.imaging.crops import crop_sizes
from ray_kplm.imaging.synthetic.category import LICENCE
from ray_kplm.methods.visibility import found_of
from ray_kplm.points.layout import Layout
from ray_kplm.points.stored import LANDMARKS, chosen_name
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.report.edited_points import marks_with
from ray_kplm.report.headlines import headlines
from ray_kplm.report.model_card import Card, build_card, layout_picture
from ray_kplm.report.run_warnings import run_warnings
from ray_kplm.run import Run
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

LAYOUT, SHEET = "layout.png", "examples.png"
FILES = (WEIGHTS, MODEL_CONFIG, CARD, LAYOUT, SHEET)
"""All that a folder to share may hold."""
LAYOUT_IMAGES = 64
"""Images of which the layout is the mean, where the landmarks of a split are not on storage."""
_SCORED = ("Forward NME", "Backward NME")


@dataclass(frozen=True)
class ShareOptions:
    """What a card says besides what the run holds.

    Attributes:
        name: What `from_pretrained` takes: `user/name`, or the folder.
        licence: Of the model, an identifier of the hub; empty: not stated.
        with_images: Whether the card shows images of the data set, which become public with the model.
        points: Which points the detector finds: see `LandmarkDetector.load`.
    """

    name: str
    licence: str = ""
    with_images: bool = False
    points: str | None = None


def is_synthetic(run: Run) -> bool:
    """Return whether a detector was trained on images that this package rendered, as that of `kplm demo`."""
    if is_pretrained(run.folder):
        return bool(read_description(run.folder).get("synthetic"))
    dataset = _dataset(run)
    return dataset is not None and dataset.meta.get("licence") == LICENCE


def write_model(
    run: Run, folder: Folder, options: ShareOptions, progress: ProgressCallback = ignore_progress
) -> dict[str, Any]:
    """Write the detector of a finished run, or an exported one, with its card and pictures, to a folder.

    Ray is not needed. An earlier detector in the folder is replaced; `config.json` is written last.

    Args:
        run: The run.
        folder: A new or empty folder, or one that this function wrote.
        options: What the card says besides.
        progress: Called as the work goes on.

    Returns:
        `landmarks`, `names`, `fingerprint`, `synthetic`, `files` (name -> size in bytes), and `warnings`, those on the card.

    Raises:
        RunError: The run is not finished.
        ConfigError: The detector depends on a file of this machine, or a package is missing.
        DataError: Images are wanted for the card, and the data set is not there; or the run has no such points.
        StorageError: The folder holds something else, or a file is damaged.
    """
    others = [name for name in (*folder.names(), *folder.folders()) if not name.startswith(".") and name not in FILES]
    if others or (folder.is_file(CARD) and not is_pretrained(folder)):
        raise StorageError(
            f"{folder}: holds {(others or [CARD])[0]}, which `kplm push` did not write; give a new folder"
        )
    name = chosen_name(run.folder, options.points) if is_run(run) else options.points
    layout = landmark_predictor(run, name).layout
    dataset = _dataset(run)
    if options.with_images and dataset is None:
        raise DataError(f"{run.config.dataset}: the data set is not there, and its images are wanted for the card")
    for file in FILES:
        folder.delete_file(file)
    progress(0.0, "the pictures of the card")
    shape, layout_images = None, 0
    if dataset is not None:
        shape, layout, layout_images = _mean_layout(run, dataset, name, layout)
    if shape is not None:
        folder.write_bytes(LAYOUT, layout_picture(shape, marks_with(layout, beside=True)))
    if options.with_images and dataset is not None:
        folder.write_bytes(SHEET, draw_sheet(run, _split(dataset), 24, points=name))
    progress(0.6, "the detector")
    facts = {"synthetic": is_synthetic(run), "method": run.config.method.kind}
    plain = export_pretrained(run, folder, name, layout.skeleton, **facts)
    progress(0.9, "the card")
    card = _card(run, dataset, plain, options, name, layout, layout_images)
    folder.write_bytes(CARD, build_card(card).encode())
    return {
        "landmarks": len(layout),
        "names": list(layout.names),
        "fingerprint": plain["fingerprint"],
        "synthetic": facts["synthetic"],
        "files": {file: folder.size(file) for file in FILES if folder.is_file(file)},
        "warnings": list(card.warnings),
    }


def check_shared(run: Run) -> dict[str, Any]:
    """Return what `write_model` returned for a folder that it wrote, after reading all that the detector needs.

    Raises:
        DamageError: A file is damaged or missing.
    """
    layout = pretrained_predictor(run).layout
    plain = read_description(run.folder)
    if not run.folder.is_file(CARD):
        raise RunError(
            f"{run.folder}: has no {CARD}, the model card; write the folder again by `kplm push RUN --folder DIR`"
        )
    names = [name for name in FILES if run.folder.is_file(name)]
    return {
        "landmarks": len(layout),
        "names": list(layout.names),
        "fingerprint": plain["fingerprint"],
        "synthetic": bool(plain.get("synthetic")),
        "files": {name: run.folder.size(name) for name in names},
        "warnings": [],
    }


def _dataset(run: Run) -> Dataset | None:
    """Return the dataset of a run; None if it is not there any more."""
    try:
        return Dataset.open(run.config.dataset)
    except DataError:
        return None


def _split(dataset: Dataset) -> str:
    return TEST if TEST in dataset.manifest["splits"] and dataset.count(TEST) else TRAIN


def _mean_layout(
    run: Run, dataset: Dataset, name: str | None, layout: Layout
) -> tuple[NDArray[np.float64] | None, Layout, int]:
    """Return the mean shape (K, 2) of points over images of a split, their layout with a skeleton, and the number of images.

    Without any point there is no shape, and the layout is as it is given.

    Args:
        run: The run, or an exported detector.
        dataset: Its dataset.
        name: Of the set of points of a run; None of an exported detector.
        layout: Of the points.
    """
    split = _split(dataset)
    stored = stored_landmarks_of(run, dataset, split) if name == LANDMARKS and is_run(run) else None
    columns = dataset.images(split).read_tables(dataset.parts(split), ["width", "height"])
    sizes = np.concatenate([crop_sizes(table) for table in columns])
    if stored is None:
        chosen = choose_images(run, dataset, split, LAYOUT_IMAGES)
        seen, sizes = predict_images_of(run, dataset, split, chosen, name), sizes[chosen]
    else:
        seen = stored
    if not np.isfinite(seen.xy).any():
        return None, layout, 0
    found = np.where(found_of(seen.xy, seen.probability)[..., None], seen.xy, np.nan)
    shape = mean_shape(in_square(seen.xy, sizes[:, None]), mirrored=facing_rule(run) is not None)
    return shape, layout.joined(found), len(seen.xy)


def _card(
    run: Run,
    dataset: Dataset | None,
    plain: dict[str, Any],
    options: ShareOptions,
    points: str | None,
    layout: Layout,
    layout_images: int,
) -> Card:
    is_measured = not has_own_network(run, points)
    quality, metrics = (_measured(run, file) if is_measured else None for file in ("quality.json", "metrics.json"))
    if quality:
        quality = {**quality, "against": None}  # it names another run of this machine
    made = how_made(run, points, landmark_predictor(run, points).points)
    known = headlines(quality or {}, metrics or {}, plain["landmarks"])
    meta = {} if dataset is None else dataset.meta
    counted = 0 if dataset is None else dataset.count(_split(dataset))
    warnings = run_warnings(quality, metrics, images=counted) if quality or metrics else []
    config = run.config
    name = str(meta.get("name") or "")
    return Card(
        title=f"{len(layout)} {'points' if made else 'landmarks'}{f' of {name}' if name else ''}",
        name=options.name,
        landmarks=len(layout),
        method=config.method.kind,
        images=0 if dataset is None else dataset.count(TRAIN),
        synthetic=plain["synthetic"],
        has_visibility=plain["visibility_features"] is not None,
        dataset=name,
        data_licence=str(meta.get("licence") or ""),
        licence=options.licence,
        label_free=[one for one in known if one[0] not in _SCORED],
        labelled=[one for one in known if one[0] in _SCORED],
        test_images=0 if not metrics else int(metrics["images"]),
        warnings=warnings,
        layout=LAYOUT if layout_images else "",
        layout_images=layout_images,
        sheet=SHEET if options.with_images else "",
        facts={
            "Method": config.method.kind,
            "Network input": f"{config.network.image_size} px",
            "Generic keypoints": config.keypoints.detector,
            "Rounds": f"{config.stage1.rounds} after a warm-up of {config.stage1.warmup_iterations:,} iterations",
            "Stage 2": f"{config.stage2.iterations:,} iterations",
            "Seed": str(config.seed),
            **plain["versions"],
            "Fingerprint": str(plain["fingerprint"])[:16],
        },
        points=named_points(run, points, layout),
        made=made,
        discovered=plain["landmarks"] if is_measured else 0,
    )


def _measured(run: Run, name: str) -> dict[str, Any] | None:
    folder = run.folder / "evaluation"
    return folder.read_object(name) if folder.is_file(name) else None
