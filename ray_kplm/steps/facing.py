"""What a mirror image of the category is, and which way each image faces (docs/method.md 9).

The descriptors of a seeded sample decide what a mirror image is, where `method.mirror` is `auto`, and give a template of one
facing. The template then gives the facing of every image. So memory does not grow with the dataset.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.facing import facings, fit_template, mirror_evidence
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection, full_selection
from ray_kplm.dense_features import build_features, describe_images, feature_options
from ray_kplm.dense_features.hog import Hog
from ray_kplm.imaging import coordinates
from ray_kplm.methods import build_method
from ray_kplm.methods.base import Method
from ray_kplm.methods.facing import DOUBTFUL, FACING, FacingRule, Facings, cut
from ray_kplm.methods.inputs import read_inputs
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import FACINGS, TRAIN
from ray_kplm.steps.context import RunContext
from ray_kplm.steps.task import DETECTION_COST, Task
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

_SAMPLE_IMAGES = 2_000
"""Images of the sample: all their pairs are compared."""
_SAMPLE_FACINGS = "sample.parquet"
"""File of the facings of the sample's images, each by the rule that is fitted to the others."""
_SAMPLE = 41
"""Of the seed of the sample."""


@dataclass(frozen=True, eq=False)
class FindFacing(Task):
    """What a mirror image is, and the facing of each training image, from the pictures alone."""

    @property
    def path(self) -> str:
        return FACING

    @property
    def step(self) -> Step:
        context, config = self.context, self.context.config
        reads = {
            "seed": config.seed,
            "mirror": config.method.mirror,
            "image_size": config.network.image_size,
            **feature_options(config),
        }
        return context.run.step(self.path, "facing", reads, {"dataset": context.dataset.fingerprint})

    @property
    def cost(self) -> float:
        return self.context.dataset.count(TRAIN) * DETECTION_COST / 5

    def run(self, executor: Executor) -> None:
        context, config = self.context, self.context.config
        executor.begin(self, "what a mirror image is")
        images = full_selection(context.dataset.parts(TRAIN), context.dataset.rows(TRAIN))
        sample = images.sample(_SAMPLE_IMAGES, (config.seed, _SAMPLE), SAMPLE_PARTS)
        work = _Work(config, context.images, self.folder)
        pool, progress = Pool(config.compute.detect_workers or os.cpu_count() or 1), executor.progress.advance
        facts = _find_rule(work, sample, pool, part_of(progress, 0.0, 0.3))
        if facts["mirror"] == "facing":
            map_parts(_FacePart, {"work": work}, images, pool, part_of(progress, 0.3, 1.0))
        executor.finish(self, facts, {"mirror_contrast": facts["contrast"]}, 0, evidence_text(facts))

    def facings(self) -> Facings | None:
        """Return the facings; None where the finished step found that mirror images are no `facing`."""
        return Facings(self.folder) if self.manifest["mirror"] == "facing" else None

    def of_images(self, selection: Selection) -> NDArray[np.float32] | None:
        """Return the facings of a round's images, in their order: (N,); None as for `facings`."""
        facings, images = self.facings(), self.context.images
        if facings is None:
            return None
        ids = images.read_tables(selection.parts, ["image_id"])
        chosen = [
            table["image_id"].take(pa.array(rows)).to_pylist() for table, rows in zip(ids, selection.rows, strict=True)
        ]
        return np.concatenate(facings.of_parts(selection.parts, chosen))


def decided_method(context: RunContext, facing: FindFacing | None) -> Method:
    """Return the run's method with `method.mirror` as it was decided, if the run decides it."""
    return context.method if facing is None else build_method(decided(context.config, facing))


def decided(config: Config, facing: FindFacing | None) -> Config:
    """Return a configuration with `method.mirror` as it was decided, if the run decides it."""
    if facing is None:
        return config
    mirror: Literal["facing", "partners"] = "partners" if facing.facings() is None else "facing"
    return replace(config, method=replace(config.method, mirror=mirror))


def evidence_text(facts: dict[str, Any]) -> str:
    """Return what was decided and why, in one line."""
    symmetric = f"{100 * facts['symmetric']:.0f} % of the images are like their own mirror image"
    if facts["mirror"] == "partners":
        return f"mirror images have partners: {symmetric}"
    return (
        f"mirror images face the other way: {symmetric}; facings agree by {facts['agreement']:.2f}, "
        f"{100 * facts['doubtful']:.0f} % are doubtful"
    )


@dataclass(frozen=True)
class _Work:
    """What the workers read and write."""

    config: Config
    images: Folder
    target: Folder


class _DescribePart:
    """A worker that describes the sample's objects and their mirror images, by HOG and by the chosen features."""

    def __init__(self, work: _Work) -> None:
        cv2.setNumThreads(1)
        self._work = work
        self._models = {"hog": Hog()} | (
            {} if work.config.features == "hog" else {"chosen": build_features(work.config)}
        )

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        objects, boxes, ids = [], [], []
        for batch in read_inputs(self._work.images, part, rows, self._work.config):
            objects += [
                cut(image, box if np.isfinite(box).all() else None)
                for image, box in zip(batch.images, batch.boxes, strict=True)
            ]
            boxes.append(batch.boxes)
            ids += batch.ids
        described = {
            f"{name}{way}": describe_images(model, objects, mirrored=way == "_mirrored").tobytes()
            for name, model in self._models.items()
            for way in ("", "_mirrored")
        }
        return {"part": part, "ids": ids, "boxes": np.concatenate(boxes).tobytes(), **described}


class _FacePart:
    """A worker that writes the facings of a part's images, unless they are there."""

    def __init__(self, work: _Work) -> None:
        cv2.setNumThreads(1)
        self._work, self._rule = work, FacingRule.read(work.target, work.config)
        sample = work.target.read_table(_SAMPLE_FACINGS)
        self._sample = dict(zip(sample["image_id"].to_pylist(), sample["facing"].to_pylist(), strict=True))

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        if not self._work.target.is_whole(part):
            ids, facing = [], []
            for batch in read_inputs(self._work.images, part, rows, self._work.config):
                ids += batch.ids
                facing += self._rule(batch.images, batch.boxes).tolist()
            table = pa.table([ids, [self._sample.get(*pair) for pair in zip(ids, facing, strict=True)]], schema=FACINGS)
            self._work.target.write_table(part, table)
        return {"part": part}


def _find_rule(work: _Work, sample: Selection, pool: Pool, progress: ProgressCallback) -> dict[str, Any]:
    """Write the rule of the sample, and return what a mirror image is with the evidence.

    Returns:
        mirror: `partners` or `facing`; sample: its images; the fields of `MirrorEvidence`; and of `facing`, agreement: see
        `synchronise`; doubtful: the share of facings below DOUBTFUL; positive: the share that faces the positive way.
    """
    answers = sorted(
        map_parts(_DescribePart, {"work": work}, sample, pool, progress), key=lambda answer: answer["part"]
    )

    def joined(name: str) -> NDArray[np.float32]:
        values = np.concatenate([np.frombuffer(answer[name], np.float32) for answer in answers])
        return values.reshape(sample.images, -1)

    evidence = mirror_evidence(joined("hog"), joined("hog_mirrored"))
    mirror = work.config.method.mirror
    if mirror == "auto":
        mirror = "facing" if evidence.seen_from_the_side else "partners"
    facts: dict[str, Any] = {"mirror": mirror, "sample": sample.images, **asdict(evidence)}
    if mirror == "facing":
        chosen = "hog" if work.config.features == "hog" else "chosen"
        plain, mirrored = joined(chosen), joined(f"{chosen}_mirrored")
        fitted = fit_template(plain, mirrored)
        box = _mean_box(joined("boxes"), work.config.network.image_size)
        FacingRule(work.config, fitted.template, box).write(work.target)
        facing = facings(fitted.half_log_odds)
        table = pa.table([[image for answer in answers for image in answer["ids"]], facing], schema=FACINGS)
        work.target.write_table(_SAMPLE_FACINGS, table)
        facts |= {
            "agreement": fitted.agreement,
            "doubtful": float((np.abs(facing) < DOUBTFUL).mean()),
            "positive": float((facing > 0).mean()),
        }
    return facts


def _mean_box(boxes: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the mean of boxes (N, 4) and of their mirror images, as shares of the side; the whole input if none is known."""
    known = boxes[np.isfinite(boxes).all(axis=1)].reshape(-1, 2, 2)
    if not len(known):
        return np.array([0, 0, 1, 1], np.float32)
    mirrored = coordinates.mirrored(known, side)
    mirrored[..., 0] = mirrored[:, ::-1, 0]
    return np.asarray(np.concatenate([known, mirrored]).mean(axis=0).ravel() / side, np.float32)
