"""What the rounds of a run leave that can be looked at: landmarks, or keypoints alone."""

from __future__ import annotations

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.run import Run
from ray_kplm.steps.recorder import Recording, record


def recording_of(run: Run) -> Recording:
    """Return the tasks of a run, of the dataset that it was configured for."""
    return record(run, Dataset.open(run.config.dataset))


def rounds_have_landmarks(run: Run) -> bool:
    """Return whether the rounds of a run end with clusters, whose points are landmarks before stage 2."""
    return recording_of(run).has_clusters
