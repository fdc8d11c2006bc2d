"""Descriptors of a few images by the first and the last network of stage 1, in the plane."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from ray_kplm.correspondence.assignment import nearest, on_grid
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.correspondence.features import read_features
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.methods import build_method
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.embedding import Described, match_by_place, sampled, tsne
from ray_kplm.report.page import Embedding
from ray_kplm.run import Run, Step, round_path
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.steps.extract import Extraction, extract
from ray_kplm.storage import Folder

IMAGES = 200
_PARTS = 8
_FILE = "embedding.npz"


def embedding_step(run: Run) -> Step | None:
    """Where the embedding of a finished run is kept; None: its generation has no descriptors."""
    if not build_method(run.config).describes:
        return None
    labels = {path: manifest["fingerprint"] for path in _labels(run) if (manifest := run.manifest(path))}
    return run.step("report/descriptors", "describe", {"images": IMAGES, "seed": run.config.seed}, labels)


def _labels(run: Run) -> list[str]:
    return [f"{round_path(number)}/labels" for number in _rounds(run)]


def _rounds(run: Run) -> list[int]:
    """The first and the last round."""
    return sorted({0, run.config.stage1.rounds})


def embed(run: Run, dataset: Dataset, step: Step, progress: ProgressCallback) -> None:
    """Extract a sample of training images again (a round's descriptors are not kept), and lay them out by t-SNE."""
    step.begin()
    sample = _sample(dataset, run.config.seed)
    found = []
    for place, number in enumerate(_rounds(run)):
        progress(place / 4, f"descriptors of {sample.images} training images, {_title(number)}")
        found.append(_described(run, dataset, sample, number, step.folder / f"{number:03d}"))
    landmarks, names = _landmarks(run, found)
    arrays: dict[str, NDArray] = {}
    for place, (number, points, name) in enumerate(zip(_rounds(run), found, names, strict=True)):
        few = sampled(points, run.config.seed)
        progress(0.5 + place / 4, f"t-SNE of {len(few.image)} descriptors, {_title(number)}")
        arrays[f"xy_{number}"] = tsne(few.descriptors, run.config.seed)
        arrays[f"landmark_{number}"] = name[few.cluster]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its keywords are arrays
    step.folder.write_bytes(_FILE, buffer.getvalue())
    step.finish(images=sample.images, landmarks=landmarks)


def _sample(dataset: Dataset, seed: int) -> Selection:
    """Training images of a few parts: each is read as a whole."""
    parts, rows = dataset.parts(TRAIN), dataset.rows(TRAIN)
    few = np.sort(np.random.default_rng([seed, 53]).permutation(len(parts))[:_PARTS])
    return full_selection([parts[i] for i in few], [rows[i] for i in few]).sample(IMAGES, (seed, 53))


def read_embeddings(run: Run, step: Step) -> list[Embedding]:
    """What `embed` left: the warm-up's and the last round's."""
    with np.load(io.BytesIO(step.folder.read_bytes(_FILE))) as arrays:
        return [Embedding(_title(n), arrays[f"xy_{n}"], arrays[f"landmark_{n}"]) for n in _rounds(run)]


def _described(run: Run, dataset: Dataset, sample: Selection, number: int, target: Folder) -> Described:
    """The network's keypoints with the nearest of its round's clusters."""
    method, options = build_method(run.resolved), run.config.detection
    folder = run.folder / "rounds" / f"{number:03d}"
    per_landmark = options.points_per_landmark if number else options.warmup_points_per_landmark
    extraction = Extraction(method, number, folder / "train", dataset.images(TRAIN), sample, per_landmark, target)
    extract(extraction, sample)
    clusters = read_clusters(folder)
    grid = on_grid(clusters["landmark_centroids" if "landmark_centroids" in clusters else "centroids"])
    pieces, before = [], 0
    for part, rows in zip(sample.parts, sample.rows, strict=True):
        features = read_features(target, part)
        own = nearest(features.descriptors, grid)
        pieces.append(Described(features.image + before, features.xy_square, features.descriptors, own))
        before += len(rows)
    target.delete()
    names = ("image", "xy", "descriptors", "cluster")
    return Described(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


def _landmarks(run: Run, found: list[Described]) -> tuple[int, list[NDArray]]:
    """K, and for each round the landmark of each cluster: the last round's clusters became the channels; the first round's are
    the same ones where clusters keep their numbers, else those that lie at the same places."""
    channels = Channels.from_dict((run.folder / "stage2").read_json(CHANNELS))
    last = channels.landmark_to_channel.astype(np.int64)
    if len(found) == 1:
        return len(channels), [last]
    if build_method(run.config).continues_clusters:
        return len(channels), [last, last]
    by_place = match_by_place(found[0], found[1], len(last))
    first = np.where(by_place == NONE, NONE, last[by_place])
    width = max(len(first), int(found[0].cluster.max(initial=0)) + 1)
    return len(channels), [np.pad(first, (0, width - len(first)), constant_values=NONE), last]


def _title(number: int) -> str:
    return "After the warm-up" if number == 0 else f"After round {number}"
