"""All steps of a run: where each writes, what it reads of the configuration, and which steps' results go in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray_kplm.contracts import TRAIN
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.selection import Selection, draw
from ray_kplm.methods.generation import Generation
from ray_kplm.run import Run, Step, round_path


class Steps:
    """keypoints -> (train -> features -> labels) for each round, 0 being the warm-up -> landmarks.

    Where the warm-up trains on clusters, `first_labels` come before it; where channels are merged, stretches of `merging`
    come before the last of stage 2.
    """

    def __init__(self, run: Run, dataset: Dataset, method: Generation) -> None:
        self._run, self._dataset, self._method, self._config = run, dataset, method, run.config
        self.keypoints = self._keypoints()
        self.first_labels = self._first_labels() if method.clusters_keypoints else None
        self.train: list[Step] = []
        self.features: list[Step] = []
        self.labels: list[Step] = []
        for number in range(self._config.stage1.rounds + 1):
            self.train.append(self._train(number))
            self.features.append(self._features(number))
            self.labels.append(self._labels(number))
        self.merging: list[tuple[Step, Step]] = []
        for number in range(method.merges):
            train = self._landmarks(f"{merging_path(number)}/train")
            self.merging.append((train, self._merge(number, train)))
        self.landmarks = self._landmarks("stage2")

    def __iter__(self) -> Iterator[Step]:
        """In the order of work."""
        yield self.keypoints
        if self.first_labels:
            yield self.first_labels
        for steps in zip(self.train, self.features, self.labels, strict=True):
            yield from steps
        for pair in self.merging:
            yield from pair
        yield self.landmarks

    def images(self, number: int) -> int:
        """How many images round `number` trains on; after the last round comes stage 2."""
        return min(self._method.round_images(number), self._dataset.count(TRAIN))

    def selection(self, number: int) -> Selection:
        """The images that round `number` trains on; the round before it labels them."""
        parts, rows = self._dataset.parts(TRAIN), self._dataset.rows(TRAIN)
        return draw(parts, rows, count=self.images(number), round_number=number, seed=self._config.seed)

    def _keypoints(self) -> Step:
        reads = {**self._common(), "keypoints": asdict(self._config.keypoints), "images": self.images(0)}
        return self._run.step("keypoints", "keypoints", reads, {"dataset": self._dataset.fingerprint})

    def _train(self, number: int) -> Step:
        reads = {**self._training(), "stage1": asdict(self._config.stage1), "images": self.images(number)}
        if number:
            inputs = {"labels": self.labels[-1].fingerprint, "network": self.train[-1].fingerprint}
        elif self.first_labels:
            inputs = {"labels": self.first_labels.fingerprint}
        else:
            inputs = {"keypoints": self.keypoints.fingerprint}
        return self._run.step(f"{round_path(number)}/train", "train", reads, inputs)

    def _first_labels(self) -> Step:
        inputs = {"features": self.keypoints.fingerprint}
        return self._run.step("keypoints/clustered/labels", "correspond", self._correspondence(), inputs)

    def _features(self, number: int) -> Step:
        reads = {
            **self._common(),
            "landmarks": self._config.method.landmarks,
            "detection": asdict(self._config.detection),
            "images": self.images(number + 1),
        }
        inputs = {"network": self.train[-1].fingerprint}
        if number and self._method.keeps_points:
            inputs["known"] = self.labels[-1].fingerprint
        return self._run.step(f"{round_path(number)}/features", "extract", reads, inputs)

    def _labels(self, number: int) -> Step:
        inputs = {"features": self.features[-1].fingerprint}
        if number and self._method.continues_clusters:
            inputs["centroids"] = self.labels[-1].fingerprint
        return self._run.step(f"{round_path(number)}/labels", "correspond", self._correspondence(), inputs)

    def _correspondence(self) -> dict[str, Any]:
        clustering = asdict(self._config.clustering)
        del clustering["memory_gib"]
        method = {name: getattr(self._config.method, name) for name in ("kind", "clusters", "flip_map", "drop_static")}
        return {**self._common(), "method": method, "clustering": clustering}

    def _landmarks(self, path: str) -> Step:
        stage2 = asdict(self._config.stage2)
        del stage2["flip_at_test"]
        reads = {**self._training(), "stage2": stage2}
        if self._method.merges:
            reads["merging"] = asdict(self._config.merging)
        before = self.merging[-1][1] if self.merging else self.train[-1]
        inputs = {"labels": self.labels[-1].fingerprint, "network": before.fingerprint}
        return self._run.step(path, "landmarks", reads, inputs)

    def _merge(self, number: int, train: Step) -> Step:
        reads = {**self._common(), "merging": asdict(self._config.merging)}
        return self._run.step(f"{merging_path(number)}/merge", "merge", reads, {"network": train.fingerprint})

    def _common(self) -> dict[str, Any]:
        return {"seed": self._config.seed, "method": {"kind": self._config.method.kind}}

    def _training(self) -> dict[str, Any]:
        compute = asdict(self._config.compute)
        layout = ("workers", "linear_rule", "precision", "channels_last")
        return {
            **self._common(),
            "method": {"kind": self._config.method.kind, "flip": self._config.method.flip},
            "network": asdict(self._config.network),
            "augment": asdict(self._config.augment),
            "compute": {name: compute[name] for name in layout},
        }


def merging_path(number: int) -> str:
    """`merging/000`."""
    return f"merging/{number:03d}"
