"""Clustering of descriptors to pseudo-labels (thesis Algorithm 2, lines 10 and 11; docs/method.md 3, steps 2 to 4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ray_kplm.config_names import as_recorded, drop_static_as_recorded
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.methods.labels import Labels, cluster_labels
from ray_kplm.run import Step, round_path
from ray_kplm.runtime.kmeans_actors import cluster_with_actors
from ray_kplm.steps.context import RunContext
from ray_kplm.steps.detect import read_background
from ray_kplm.steps.extract import ExtractFeatures
from ray_kplm.steps.facing import decided_method
from ray_kplm.steps.task import FORWARD_COST, LandmarkLabels, RoundLabels, Task, metrics_of
from ray_kplm.storage.integrity import OUTPUTS

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_COLUMNS = ["xy", "landmark", "cluster", "cluster_flipped"]


@dataclass(frozen=True, eq=False)
class ClusterKeypoints(RoundLabels):
    """Clusters of the generic keypoints' own descriptors, for the warm-up (thesis 5.3.2)."""

    keypoints: Task

    starts_workers = works_in_workers = uses_clustering = True

    @property
    def path(self) -> str:
        return "keypoints/clustered/labels"

    @property
    def step(self) -> Step:
        inputs = {"features": self.keypoints.fingerprint}
        return self.context.run.step(self.path, "correspond", clustering_reads(self.context), inputs)

    @property
    def cost(self) -> float:
        return self.context.image_count(0) * FORWARD_COST / 2

    def run(self, executor: Executor) -> None:
        context = self.context
        executor.begin(self, "generic keypoints: clustering")
        facts = cluster_with_actors(
            self.keypoints.folder,
            context.selection(0).parts,
            self.folder,
            self.folder.parent,
            context.method,
            context.stage2,  # the seed of no round
            progress=executor.progress.advance,
            place=executor.clustering_place(self),
        )
        executor.progress.set_points_per_image(facts["points_per_image"])
        executor.finish(self, facts, metrics_of(facts), 0)

    def round_labels(self, parts: list[str]) -> Labels:
        """Return labels by which keypoints of one cluster correspond."""
        return cluster_labels(self.folder.read_tables(parts, _COLUMNS))


@dataclass(frozen=True, eq=False)
class ClusterFeatures(RoundLabels, LandmarkLabels):
    """Pseudo-labels for the next round, from the features of its images."""

    round: int
    features: ExtractFeatures
    previous: Task | None
    """Labels whose clusters are continued."""

    starts_workers = works_in_workers = uses_clustering = True

    @property
    def path(self) -> str:
        return f"{round_path(self.round)}/labels"

    @property
    def step(self) -> Step:
        inputs = {"features": self.features.fingerprint}
        if self.previous is not None:
            inputs["centroids"] = self.previous.fingerprint
        return self.context.run.step(self.path, "correspond", clustering_reads(self.context), inputs)

    @property
    def cost(self) -> float:
        return self.context.image_count(self.round + 1) * FORWARD_COST / 2

    @property
    def completes_round(self) -> int:
        return self.round

    def run(self, executor: Executor) -> None:
        context = self.context
        executor.begin(self, f"{context.round_title(self.round)}: clustering")
        extracted = self.features.manifest
        facts = cluster_with_actors(
            self.features.folder,
            context.selection(self.round + 1).parts,
            self.folder,
            self.folder.parent,
            decided_method(context, self.features.facing),
            self.round,
            None if self.previous is None else self.previous.folder.parent,
            executor.progress.advance,
            read_background(context),
            executor.clustering_place(self),
        )
        facts |= {"threshold": extracted["threshold"], "extraction_seconds": extracted["seconds"]}
        executor.progress.set_points_per_image(facts["points_per_image"])
        beside = {name: record for name, record in extracted.get(OUTPUTS, {}).items() if name.startswith("../")}
        warning = _warning(facts.get("static_landmarks", []))
        executor.finish(
            self, facts | {"outputs": beside}, metrics_of(facts), context.round_end(self.round), warning
        )  # the projection, which outlives the features

    def clusters(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of `clusters.npz`, which lies beside the folder of the labels."""
        return read_clusters(self.folder.parent)

    def round_labels(self, parts: list[str]) -> Labels:
        """Return labels by which keypoints of one cluster correspond."""
        return self.context.method.round_labels(self.folder.read_tables(parts, _COLUMNS), self.clusters())


def clustering_reads(context: RunContext) -> dict[str, Any]:
    """Return what a clustering depends on."""
    config = context.config
    clustering = as_recorded("clustering", asdict(config.clustering))
    del clustering["memory_gib"]
    method = {name: getattr(config.method, name) for name in ("kind", "clusters")}
    method["drop_static"] = drop_static_as_recorded(config.method.drop_static)
    if config.method.mirror in ("partners", "none"):
        method["flip_map"] = "pairs"  # of stored fingerprints
    return {**context.common_reads(), "method": method, "clustering": clustering}


def _warning(static: list[int]) -> str:
    if not static:
        return ""
    return f"landmarks that do not move with the object, maybe background: {static}; method.drop_static=yes leaves them out"
