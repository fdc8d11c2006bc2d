"""All steps of a run: where each writes, what it reads of the configuration, and which steps' results go in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray_kplm.contracts import TRAIN
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.selection import Selection, draw
from ray_kplm.methods.kplm import Kplm
from ray_kplm.run import Run, Step, round_path


class Steps:
    """keypoints -> (train -> features -> labels) for each round, 0 being the warm-up -> landmarks."""

    def __init__(self, run: Run, dataset: Dataset, method: Kplm) -> None:
        self._run, self._dataset, self._method, self._config = run, dataset, method, run.config
        self.keypoints = self._keypoints()
        self.train: list[Step] = []
        self.features: list[Step] = []
        self.labels: list[Step] = []
        for number in range(self._config.stage1.rounds + 1):
            self.train.append(self._train(number))
            self.features.append(self._features(number))
            self.labels.append(self._labels(number))
        self.landmarks = self._landmarks()

    def __iter__(self) -> Iterator[Step]:
        """In the order of work."""
        yield self.keypoints
        for steps in zip(self.train, self.features, self.labels, strict=True):
            yield from steps
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
        inputs = {"keypoints": self.keypoints.fingerprint}
        if number:
            inputs = {"labels": self.labels[-1].fingerprint, "network": self.train[-1].fingerprint}
        return self._run.step(f"{round_path(number)}/train", "train", reads, inputs)

    def _features(self, number: int) -> Step:
        reads = {
            **self._common(),
            "landmarks": self._config.method.landmarks,
            "detection": asdict(self._config.detection),
            "images": self.images(number + 1),
        }
        inputs = {"network": self.train[-1].fingerprint}
        return self._run.step(f"{round_path(number)}/features", "extract", reads, inputs)

    def _labels(self, number: int) -> Step:
        clustering = asdict(self._config.clustering)
        del clustering["memory_gib"]
        method = {name: getattr(self._config.method, name) for name in ("kind", "clusters", "flip_map", "drop_static")}
        reads = {**self._common(), "method": method, "clustering": clustering}
        inputs = {"features": self.features[-1].fingerprint}
        return self._run.step(f"{round_path(number)}/labels", "correspond", reads, inputs)

    def _landmarks(self) -> Step:
        stage2 = asdict(self._config.stage2)
        del stage2["flip_at_test"]
        inputs = {"labels": self.labels[-1].fingerprint, "network": self.train[-1].fingerprint}
        return self._run.step("stage2", "landmarks", {**self._training(), "stage2": stage2}, inputs)

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
