"""The vocabulary of a method's page: the steps of a run as methods, and handles of their output.

A page, such as `methods.kplm.discover_landmarks`, is a function of `Steps`. Calling it computes nothing: it records the steps,
their order, and which output each one takes (`steps.recorder`). The executor then runs the recorded steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Output(Protocol):
    """The output of a step on storage: keypoints, features, pseudo-labels or a network."""

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

    def find_facing(self) -> Output | None:
        """Find what a mirror image is, and which way each image faces; None if `method.mirror` is `partners` or `none`."""
        ...

    def train(self, round: int, labels: Output, start: Output | None = None, facing: Output | None = None) -> Output:
        """Train the network of stage 1 on pseudo-labels, on from the network `start` if there is one.

        Where mirror images are `facing`, all images are shown as they face one way.
        """
        ...

    def extract_features(
        self, round: int, network: Output, known: Output | None = None, facing: Output | None = None
    ) -> Output:
        """Extract keypoints with descriptors from the images of the next round, and describe the points of `known` labels."""
        ...

    def extract_keypoints(self, round: int, network: Output) -> Output:
        """Extract keypoints without descriptors: they are the next round's labels."""
        ...

    def cluster(self, round: int, features: Output, previous: Output | None = None) -> Output:
        """Cluster features to pseudo-labels. Clusters continue those of `previous` labels if they are given."""
        ...

    def align(self, keypoints: Output) -> Output:
        """Give the keypoints of all images the identities of the template's, the points of one image."""
        ...

    def train_landmarks(
        self, labels: Output, start: Output | None = None, phase: int | None = None, facing: Output | None = None
    ) -> Output:
        """Train the landmark detector, on from the network `start` if there is one. phase: of stage 2, by default the last."""
        ...

    def merge_channels(self, phase: int, detector: Output) -> Output:
        """Merge the channels of the detector that follow one point."""
        ...

    def update_labels(self, phase: int, detector: Output) -> Output:
        """Label the images with the landmarks that the detector predicts."""
        ...

    def export_joint_head(self, network: Output, labels: Output) -> Output:
        """Take the landmark detector out of a network that was trained jointly on `labels`."""
        ...

    def calibrate_visibility(self, detector: Output, facing: Output | None = None) -> Output:
        """Fit what gives the landmarks of the detector their probabilities of being there, without annotation."""
        ...
