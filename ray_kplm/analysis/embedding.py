"""t-SNE embeddings of the descriptors of some images, by the first and the last network of stage 1."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.analysis.recordings import recording_of, rounds_have_landmarks
from ray_kplm.correspondence.assignment import nearest, on_grid
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.correspondence.features import read_features
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, full_selection
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.methods import build_method
from ray_kplm.methods.channels import Channels
from ray_kplm.progress import ProgressCallback
from ray_kplm.report.embedding import Described, match_by_place, sampled, tsne
from ray_kplm.report.run_page import Embedding
from ray_kplm.run import Run, Step, round_path
from ray_kplm.schemas import NONE, TRAIN
from ray_kplm.steps.extract import extract
from ray_kplm.steps.extract_part import Extraction
from ray_kplm.storage import Folder
from ray_kplm.storage.file_content import load_arrays

IMAGES = 200
"""Number of training images whose descriptors are embedded."""
_PARTS = 8
"""Number of parts they are taken from, as a part is read as a whole."""
_FILE = "embedding.npz"


def embedding_step(run: Run) -> Step | None:
    """Return the step that keeps the embeddings of a finished run, or None if its method has no descriptors."""
    if not rounds_have_landmarks(run):
        return None
    labels = {path: manifest["fingerprint"] for path in _labels(run) if (manifest := run.manifest(path))}
    return run.step("report/descriptors", "describe", {"images": IMAGES, "seed": run.config.seed}, labels)


def _labels(run: Run) -> list[str]:
    return [f"{round_path(number)}/labels" for number in _rounds(run)]


def _rounds(run: Run) -> list[int]:
    """Return the numbers of the first and the last round."""
    return sorted({0, run.config.stage1.rounds})


def embed(run: Run, dataset: Dataset, step: Step, progress: ProgressCallback) -> None:
    """Compute the embeddings and keep them in the step's folder.

    The descriptors of a round are not kept, so a sample of the training images is extracted again.

    Args:
        run: A finished run.
        dataset: The run's dataset.
        step: From `embedding_step`.
        progress: Called as the work goes on.
    """
    step.begin()
    sample = _sample(dataset, run.config.seed)
    described = []
    for index, number in enumerate(_rounds(run)):
        progress(index / 4, f"descriptors of {sample.images} training images, {_title(number)}")
        described.append(_described(run, dataset, sample, number, step.folder / f"{number:03d}"))
    landmarks, landmark_of_cluster = _landmarks(run, described)
    arrays: dict[str, NDArray[Any]] = {}
    for index, (number, points) in enumerate(zip(_rounds(run), described, strict=True)):
        few = sampled(points, run.config.seed)
        progress(0.5 + index / 4, f"t-SNE of {len(few.image)} descriptors, {_title(number)}")
        arrays[f"xy_{number}"] = tsne(few.descriptors, run.config.seed)
        arrays[f"landmark_{number}"] = landmark_of_cluster[index][few.cluster]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the keywords are names of arrays
    step.folder.write_bytes(_FILE, buffer.getvalue())
    step.finish(images=sample.images, landmarks=landmarks)


def _sample(dataset: Dataset, seed: int) -> Selection:
    """Return a seeded sample of training images from a few parts."""
    parts, rows = dataset.parts(TRAIN), dataset.rows(TRAIN)
    few = np.sort(np.random.default_rng([seed, 53]).permutation(len(parts))[:_PARTS])
    return full_selection([parts[i] for i in few], [rows[i] for i in few]).sample(IMAGES, (seed, 53))


def read_embeddings(run: Run, step: Step) -> list[Embedding]:
    """Read the embeddings that `embed` kept: of the warm-up and of the last round."""
    with step.folder.parsing(_FILE):
        arrays = load_arrays(step.folder.read_bytes(_FILE))
        return [Embedding(_title(n), arrays[f"xy_{n}"], arrays[f"landmark_{n}"]) for n in _rounds(run)]


def _described(run: Run, dataset: Dataset, sample: Selection, number: int, target: Folder) -> Described:
    """Extract the keypoints of a round's network, each with the nearest cluster of that round.

    Args:
        run: The run.
        dataset: The run's dataset.
        sample: The images.
        number: Number of the round.
        target: Folder for the features, which is deleted at the end.
    """
    method, options = build_method(run.resolved), run.config.detection
    folder = run.unit(f"{round_path(number)}/labels").parent
    per_landmark = options.points_per_landmark if number else options.warmup_points_per_landmark
    extraction = Extraction(
        method,
        number,
        run.unit(f"{round_path(number)}/train"),
        dataset.images(TRAIN),
        sample,
        per_landmark,
        target,
        frozen_share=method.frozen_share(number),
        beside=folder,
    )
    extract(extraction, sample)
    clusters = read_clusters(folder)
    grid = on_grid(clusters["landmark_centroids" if "landmark_centroids" in clusters else "centroids"])
    pieces, first_image = [], 0
    for part, rows in zip(sample.parts, sample.rows, strict=True):
        features = read_features(target, part)
        own = nearest(features.descriptors, grid)
        pieces.append(Described(features.image + first_image, features.xy_square, features.descriptors, own))
        first_image += len(rows)
    target.delete()
    names = ("image", "xy", "descriptors", "cluster")
    return Described(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


def _landmarks(run: Run, described: list[Described]) -> tuple[int, list[NDArray[np.int64]]]:
    """Return K, and for each round the landmark of each cluster.

    The last round's clusters became the channels of stage 2. The first round's clusters correspond to these by number if
    clusters keep their numbers, and otherwise by the places of their keypoints.
    """
    channels = Channels.read(run.unit(STAGE2))
    last = channels.landmark_to_channel.astype(np.int64)
    if len(described) == 1:
        return len(channels), [last]
    if recording_of(run).keeps_cluster_numbers:
        return len(channels), [last, last]
    by_place = match_by_place(described[0], described[1], len(last))
    first = np.where(by_place == NONE, NONE, last[by_place])
    width = max(len(first), int(described[0].cluster.max(initial=0)) + 1)
    return len(channels), [np.pad(first, (0, width - len(first)), constant_values=NONE), last]


def _title(number: int) -> str:
    return "After the warm-up" if number == 0 else f"After round {number}"
