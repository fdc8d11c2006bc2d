"""What a method's page is written in: the steps of a run as verbs, and handles of what they leave as data.

A page, such as `methods.kplm.discover_landmarks`, is a function of `Steps`. It computes nothing: calling it records which steps
there are, in which order, and what each takes from which (`steps.recorder`). The executor does the recorded steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Output(Protocol):
    """What a step leaves on storage: keypoints, features, pseudo-labels or a network."""

    @property
    def path(self) -> str:
        """The step's folder, relative to the run's: `rounds/003/train`."""
        ...


class Steps(Protocol):
    """The steps that a page may take. Round 0 is the warm-up; phases are those of stage 2."""

    def rounds(self) -> Iterable[int]:
        """Return the numbers of the rounds of stage 1, the warm-up first."""
        ...

    def phases(self) -> Iterable[int]:
        """Return the numbers of the phases that stage 2 is trained in."""
        ...

    def detect_keypoints(self, *, described: bool = False) -> Output:
        """Detect generic keypoints, with the detector's own descriptors if `described`."""
        ...

    def cluster_keypoints(self, keypoints: Output) -> Output:
        """Cluster the descriptors of generic keypoints to pseudo-labels for the warm-up."""
        ...

    def train(self, round: int, labels: Output, start: Output | None = None) -> Output:
        """Train the network of stage 1 on pseudo-labels, on from the network `start` if there is one."""
        ...

    def extract_features(self, round: int, network: Output, known: Output | None = None) -> Output:
        """Extract keypoints with descriptors from the images of the next round, and describe the points of `known` labels."""
        ...

    def extract_keypoints(self, round: int, network: Output) -> Output:
        """Extract keypoints without descriptors: they are the next round's labels."""
        ...

    def cluster(self, round: int, features: Output, previous: Output | None = None) -> Output:
        """Cluster features to pseudo-labels. Clusters continue those of `previous` labels if they are given."""
        ...

    def align(self, keypoints: Output) -> Output:
        """Give the keypoints of all images the identities of one image's, the template."""
        ...

    def train_landmarks(self, labels: Output, start: Output | None = None, phase: int | None = None) -> Output:
        """Train the landmark detector, on from the network `start` if there is one. phase: of stage 2, by default the last."""
        ...

    def merge_channels(self, phase: int, detector: Output) -> Output:
        """Merge the channels of the detector that follow one point."""
        ...

    def update_labels(self, phase: int, detector: Output) -> Output:
        """Label the images with what the detector finds."""
        ...

    def export_joint_head(self, network: Output, labels: Output) -> Output:
        """Take the landmark detector out of a network that was trained jointly on `labels`."""
        ...
