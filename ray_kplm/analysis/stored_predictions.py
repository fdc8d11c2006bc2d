"""Where the landmarks of a split are kept with a run, and those that are there. It needs no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.evaluation.stages import STAGE2
from ray_kplm.inference.split_landmarks import SplitLandmarks, read_predictions
from ray_kplm.methods.visibility import VISIBILITY_STEP
from ray_kplm.network.heatmaps import DECODER_VERSION
from ray_kplm.run import MANIFEST, Run, Step
from ray_kplm.storage import Folder


def stored_landmarks_of(
    run: Run, dataset: Dataset, split: str, parts: Sequence[str] | None = None
) -> SplitLandmarks | None:
    """Return what `predictions.landmarks_of` returns, or some parts of it, if it is on storage, else None. Changes nothing."""
    step = prediction_step(run, dataset, STAGE2, split, run.finished("stage2"))
    return read_predictions(step.folder, dataset, split, parts) if step.state() == "done" else None


def prediction_step(run: Run, dataset: Dataset, stage: str, split: str, trained: Mapping[str, Any]) -> Step:
    """Return the step that publishes the landmarks of a split by a stage.

    Args:
        run: The run.
        dataset: The dataset.
        stage: A name in `evaluation.stages`, or the number of a round.
        split: The split.
        trained: The manifest of the step that trained the stage.
    """
    inputs = {"network": trained["fingerprint"], "dataset": dataset.fingerprint}
    visibility = run.manifest(VISIBILITY_STEP) if stage == STAGE2 else None
    if visibility is not None:
        inputs["visibility"] = visibility["fingerprint"]
    flip = run.config.stage2.flip_at_test
    reads = {"stage": stage, "split": split, "flip_at_test": flip, "decoder": DECODER_VERSION}
    return run.step(f"{evaluation_path(run, dataset)}/{stage}/{split}", "predict", reads, inputs)


def evaluation_path(run: Run, dataset: Dataset) -> str:
    """Return the folder within the run for scores and predictions on a dataset.

    A dataset other than the run's own has a folder of its own, named by its name and content.
    """
    own = Folder.at(run.config.dataset)
    if own == dataset.root.unchecked or (
        own.is_file(MANIFEST) and Dataset.open(own).fingerprint == dataset.fingerprint
    ):
        return "evaluation"
    name = "".join(c if c.isalnum() else "_" for c in str(dataset.meta.get("name") or "unnamed"))
    return f"evaluation/on/{name}-{dataset.fingerprint[:8]}"
