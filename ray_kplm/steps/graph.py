"""All steps of a run: where each writes, what it reads of the configuration, and which steps' results go in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray_kplm.config_names import as_recorded
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import Selection, draw_round
from ray_kplm.methods.base import Method
from ray_kplm.run import Run, Step, round_path
from ray_kplm.schemas import TRAIN

_OF_DETECTORS = ("distil_from", "rounds", "confidence")
"""Of the template's options, those that are about training."""

_OF_ROUNDS = ("correspondence", "negatives", "positives", "same_image_share")
"""Of stage 1's options, those that a warm-up on identities does not know."""

LAYOUT = ("workers", "scale_lr", "precision", "channels_last")
"""Of how the work is laid out, what a trained network depends on."""


class Steps:
    """keypoints -> (train -> features -> labels) for each round, 0 being the warm-up -> landmarks.

    Where the warm-up trains on clusters, `first_labels` come before it. Without descriptors there are no features, a round's
    labels are its keypoints, and `aligned` labels come after the last. Where stage 2 pauses there are `stretches` of it, each
    with what is done after it, before the last.
    """

    def __init__(self, run: Run, dataset: Dataset, method: Method) -> None:
        self._run, self._dataset, self._method, self._config = run, dataset, method, run.config
        self.keypoints = self._keypoints()
        self.first_labels = self._first_labels() if method.clusters_keypoints else None
        self.train: list[Step] = []
        self.features: list[Step] = []
        self.labels: list[Step] = []
        for number in range(self._config.stage1.rounds + 1):
            self.train.append(self._train(number))
            if method.describes:
                self.features.append(self._extract(number, "features"))
                self.labels.append(self._labels(number))
            else:
                self.labels.append(self._extract(number, "labels"))
        self.aligned = None if method.describes else self._aligned()
        self.stretches: list[tuple[Step, Step]] = []
        for number in range(method.pauses):
            train = self._landmarks(f"stage2/{number:03d}/train")
            self.stretches.append((train, self._pause(number, train)))
        self.landmarks = self._landmarks("stage2")

    def __iter__(self) -> Iterator[Step]:
        """In the order of work."""
        yield self.keypoints
        if self.first_labels:
            yield self.first_labels
        for number, (train, labels) in enumerate(zip(self.train, self.labels, strict=True)):
            yield train
            yield from self.features[number : number + 1]
            yield labels
        if self.aligned:
            yield self.aligned
        for stretch in self.stretches:
            yield from stretch
        yield self.landmarks

    def landmark_labels(self, stretch: int) -> Step:
        """What a stretch of stage 2 trains on."""
        if stretch and self._method.pause == "relabel":
            return self.stretches[stretch - 1][1]
        return self.aligned or self.labels[-1]

    def images(self, number: int) -> int:
        """How many images round `number` trains on; after the last round comes stage 2."""
        return min(self._method.round_images(number), self._dataset.count(TRAIN))

    def selection(self, number: int) -> Selection:
        """The images that round `number` trains on; the round before it labels them."""
        parts, rows = self._dataset.parts(TRAIN), self._dataset.rows(TRAIN)
        before, count = self._images_before(number), self.images(number)
        return draw_round(parts, rows, before=before, count=count, seed=self._config.seed)

    def _images_before(self, number: int) -> int:
        """How many images the rounds before `number` draw, all together."""
        return sum(self.images(earlier) for earlier in range(number))

    def _drawn(self, number: int) -> dict[str, int]:
        """What a step reads of round `number`'s images. Where these are all there are, or where the rounds before draw as many
        each, their count alone tells which they are."""
        before, count = self._images_before(number), self.images(number)
        follows = count == self._dataset.count(TRAIN) or before == number * count
        return {"images": count} if follows else {"images": count, "images_before": before}

    def _keypoints(self) -> Step:
        reads = {
            **self._common(),
            "keypoints": as_recorded("keypoints", asdict(self._config.keypoints)),
            **self._drawn(0),
        }
        return self._run.step("keypoints", "keypoints", reads, {"dataset": self._dataset.fingerprint})

    def _train(self, number: int) -> Step:
        stage1 = asdict(self._config.stage1)
        if number == 0 and not self._method.clusters_keypoints:
            for name in _OF_ROUNDS:
                del stage1[name]
        reads = {**self._training(), "stage1": stage1, **self._drawn(number)}
        stage2 = self._config.stage2
        if self._method.single_stage:
            reads["joint"] = {"weight": stage2.joint_weight, "heatmap_sigma": stage2.heatmap_sigma}
        if number:
            inputs = {"labels": self.labels[-1].fingerprint}
            if not self._method.restarts:
                inputs["network"] = self.train[-1].fingerprint
        elif self.first_labels:
            inputs = {"labels": self.first_labels.fingerprint}
        else:
            inputs = {"keypoints": self.keypoints.fingerprint}
        return self._run.step(f"{round_path(number)}/train", "train", reads, inputs)

    def _first_labels(self) -> Step:
        inputs = {"features": self.keypoints.fingerprint}
        return self._run.step("keypoints/clustered/labels", "correspond", self._correspondence(), inputs)

    def _extract(self, number: int, name: str) -> Step:
        reads = {
            **self._common(),
            "landmarks": self._config.method.landmarks,
            "detection": asdict(self._config.detection),
            **self._drawn(number + 1),
        }
        if not self._method.describes:
            reads["distil_from"] = self._config.template.distil_from
        inputs = {"network": self.train[-1].fingerprint}
        if number and self._method.keeps_points:
            inputs["known"] = self.labels[-1].fingerprint
        return self._run.step(f"{round_path(number)}/{name}", "extract", reads, inputs)

    def _labels(self, number: int) -> Step:
        inputs = {"features": self.features[-1].fingerprint}
        if number and self._method.continues_clusters:
            inputs["centroids"] = self.labels[-1].fingerprint
        return self._run.step(f"{round_path(number)}/labels", "correspond", self._correspondence(), inputs)

    def _correspondence(self) -> dict[str, Any]:
        clustering = as_recorded("clustering", asdict(self._config.clustering))
        del clustering["memory_gib"]
        method = {name: getattr(self._config.method, name) for name in ("kind", "clusters", "flip_map", "drop_static")}
        return {**self._common(), "method": method, "clustering": clustering}

    def _aligned(self) -> Step:
        options = asdict(self._config.template)
        reads = {
            **self._common(),
            "landmarks": self._config.method.landmarks,
            "template": {k: v for k, v in options.items() if k not in _OF_DETECTORS},
        }
        return self._run.step("template/labels", "align", reads, {"points": self.labels[-1].fingerprint})

    def _landmarks(self, path: str) -> Step:
        stage2 = asdict(self._config.stage2)
        del stage2["flip_at_test"]
        if self._method.single_stage:
            return self._run.step(path, "landmarks", self._common(), {"network": self.train[-1].fingerprint})
        reads = {**self._training(), "stage2": stage2}
        if self._method.pauses:
            merging = self._method.pause == "merge"
            reads["stretch"] = self._config.merging.every if merging else self._config.template.rounds
        inputs = {"labels": self.landmark_labels(len(self.stretches)).fingerprint}
        if not self._method.restarts:
            before = self.stretches[-1][1] if self.stretches else self.train[-1]
            inputs["network"] = before.fingerprint
        return self._run.step(path, "landmarks", reads, inputs)

    def _pause(self, number: int, train: Step) -> Step:
        """Merging the channels that a stretch has trained, or labelling with it."""
        inputs = {"network": train.fingerprint}
        if self._method.pause == "merge":
            reads = {**self._common(), "merging": asdict(self._config.merging)}
            return self._run.step(f"stage2/{number:03d}/merge", "merge", reads, inputs)
        reads = {**self._common(), "confidence": self._config.template.confidence}
        return self._run.step(f"stage2/{number:03d}/labels", "relabel", reads, inputs)

    def _common(self) -> dict[str, Any]:
        return {"seed": self._config.seed, "method": {"kind": self._config.method.kind}}

    def _training(self) -> dict[str, Any]:
        compute = asdict(self._config.compute)
        return {
            **self._common(),
            "method": {"kind": self._config.method.kind, "flip": self._config.method.flip},
            "network": asdict(self._config.network),
            "augment": asdict(self._config.augment),
            "compute": as_recorded("compute", {name: compute[name] for name in LAYOUT}),
        }
