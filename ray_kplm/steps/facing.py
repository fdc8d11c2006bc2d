"""What a mirror image of the category is, and which way each image faces (docs/method.md 9).

The descriptors of a seeded sample decide what a mirror image is, where `method.mirror` is `auto`, and give a template of one
facing. The template then gives the facing of every image. So memory does not grow with the dataset.
"""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.correspondence.facing import FacingTemplate, mirror_evidence
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, Selection, full_selection
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.hog import hog_both_ways
from ray_kplm.methods import build_method
from ray_kplm.methods.base import Method
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.run import Step
from ray_kplm.runtime.map_parts import Pool, map_parts
from ray_kplm.schemas import FACINGS, TRAIN
from ray_kplm.steps.context import RunContext
from ray_kplm.steps.task import DETECTION_COST, Task
from ray_kplm.storage import Folder

if TYPE_CHECKING:
    from ray_kplm.steps.executor import Executor

TEMPLATE = "template.npz"
_SAMPLE_IMAGES = 2_000
"""Images of the sample: all their pairs are compared."""
DOUBTFUL = 0.5
"""A facing below it has odds of less than 3 : 1."""
_SAMPLE = 41
"""Of the seed of the sample."""


@dataclass(frozen=True)
class Facings:
    """The facings of images on storage.

    Attributes:
        folders: folders of parts with the columns of schemas.FACINGS. The first folder that has an image gives its facing.
    """

    folders: tuple[Folder, ...]

    def of(self, part: str, image_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the facings of images of a part: (n,), 0 where unknown."""
        known: dict[str, float] = {}
        for folder in reversed(self.folders):
            if folder.is_file(part):
                table = folder.read_table(part, FACINGS.names)
                known |= dict(zip(table["image_id"].to_pylist(), table["facing"].to_pylist(), strict=True))
        return np.array([known.get(image, 0.0) for image in image_ids], np.float32)


class FacingSource(Task):
    """A task whose output says which way images face."""

    @abstractmethod
    def facings(self) -> Facings | None:
        """Return the facings; None where the run found that mirror images are no `facing`."""


@dataclass(frozen=True, eq=False)
class FindFacing(FacingSource):
    """What a mirror image is, and the facing of each training image, from the pictures alone."""

    @property
    def path(self) -> str:
        return "facing"

    @property
    def step(self) -> Step:
        context = self.context
        reads = {"seed": context.config.seed, "mirror": context.config.method.mirror}
        return context.run.step(self.path, "facing", reads, {"dataset": context.dataset.fingerprint})

    @property
    def cost(self) -> float:
        return self.context.dataset.count(TRAIN) * DETECTION_COST / 10

    def run(self, executor: Executor) -> None:
        context = self.context
        executor.begin(self, "what a mirror image is")
        dataset = context.dataset
        images = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
        sample = images.sample(_SAMPLE_IMAGES, (context.config.seed, _SAMPLE), SAMPLE_PARTS)
        pool = Pool(context.config.compute.detect_workers or os.cpu_count() or 1)
        work = _Work(context.images, self.folder)
        progress = executor.progress.advance
        facts = find_template(work, sample, pool, context.config.method.mirror, part_of(progress, 0.0, 0.3))
        if facts["mirror"] == "facing":
            map_parts(_FacePart, {"work": work}, images, pool, part_of(progress, 0.3, 1.0))
        executor.finish(self, facts, {"mirror_contrast": facts["contrast"]}, 0, evidence_text(facts))

    def facings(self) -> Facings | None:
        """Return the facings, which the manifest says whether there are."""
        return Facings((self.folder,)) if self.manifest["mirror"] == "facing" else None


def decided_method(context: RunContext, facing: FacingSource | None) -> Method:
    """Return the run's method with `method.mirror` as it was decided, if the run decides it."""
    return context.method if facing is None else build_method(decided(context.config, facing))


def decided(config: Config, facing: FacingSource | None) -> Config:
    """Return a configuration with `method.mirror` as it was decided, if the run decides it."""
    if facing is None:
        return config
    mirror: Literal["facing", "partners"] = "partners" if facing.facings() is None else "facing"
    return replace(config, method=replace(config.method, mirror=mirror))


def round_facing(context: RunContext, facing: FacingSource | None, selection: Selection) -> NDArray[np.float32] | None:
    """Return the facings of a round's images, in their order: (N,); None where mirror images are no `facing`."""
    facings = None if facing is None else facing.facings()
    if facings is None:
        return None
    ids = (context.images.read_table(part, ["image_id"])["image_id"] for part in selection.parts)
    return np.concatenate(
        [
            facings.of(part, column.take(pa.array(rows)).to_pylist())
            for part, rows, column in zip(selection.parts, selection.rows, ids, strict=True)
        ]
    )


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

    images: Folder
    target: Folder

    def described(
        self, part: str, rows: NDArray[np.int64]
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
        """Return the ids of images, and the descriptors of their objects and of their mirror images: (n, D) each."""
        cv2.setNumThreads(1)
        table = self.images.read_table(part, ["image_id", "image", "box"]).take(pa.array(rows))
        both = [
            hog_both_ways(_object(decode_crop(encoded), box))
            for encoded, box in zip(table["image"], table["box"].to_pylist(), strict=True)
        ]
        return table["image_id"].to_pylist(), np.stack([a for a, _ in both]), np.stack([b for _, b in both])


def _object(crop: NDArray[np.uint8], box: Sequence[float] | None) -> NDArray[np.uint8]:
    """Return the box's part of a crop; the crop without a box, or if hardly anything of the box lies in it."""
    if box is None:
        return crop
    height, width = crop.shape[:2]
    x0, y0, x1, y1 = (round(v) for v in box)
    cut = crop[max(y0, 0) : min(y1, height) + 1, max(x0, 0) : min(x1, width) + 1]
    return cut if min(cut.shape[:2]) >= 2 else crop


class _DescribePart:
    """A worker that describes the sample's images of a part."""

    def __init__(self, work: _Work) -> None:
        self._work = work

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        _, plain, mirrored = self._work.described(part, rows)
        return {"part": part, "plain": plain.tobytes(), "mirrored": mirrored.tobytes()}


class _FacePart:
    """A worker that writes the facings of a part's images, unless they are there."""

    def __init__(self, work: _Work) -> None:
        self._work, self._template = work, read_template(work.target)

    def __call__(self, part: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        if not self._work.target.is_file(part):
            ids, plain, mirrored = self._work.described(part, rows)
            table = pa.table([ids, self._template(plain, mirrored)], schema=FACINGS)
            self._work.target.write_table(part, table)
        return {"part": part}


def find_template(
    work: _Work,
    sample: Selection,
    pool: Pool,
    mirror: Literal["auto", "partners", "facing", "none"],
    progress: ProgressCallback,
) -> dict[str, Any]:
    """Write the template of the sample, and return what a mirror image is with the evidence.

    Returns:
        mirror: `partners` or `facing`; sample: its images; the fields of `MirrorEvidence`; and of `facing`, agreement: see
        `synchronise`; doubtful: the share of facings below DOUBTFUL; positive: the share that faces the positive way.
    """
    answers = sorted(
        map_parts(_DescribePart, {"work": work}, sample, pool, progress), key=lambda answer: answer["part"]
    )
    plain, mirrored = (
        np.concatenate([np.frombuffer(answer[name], np.float32) for answer in answers]).reshape(sample.images, -1)
        for name in ("plain", "mirrored")
    )
    evidence = mirror_evidence(plain, mirrored)
    chosen = mirror if mirror != "auto" else "facing" if evidence.seen_from_the_side else "partners"
    facts: dict[str, Any] = {"mirror": chosen, "sample": sample.images, **asdict(evidence)}
    if chosen == "facing":
        template, agreement = FacingTemplate.fit(plain, mirrored)
        write_template(work.target, template)
        facing = template(plain, mirrored)
        facts |= {
            "agreement": agreement,
            "doubtful": float((np.abs(facing) < DOUBTFUL).mean()),
            "positive": float((facing > 0).mean()),
        }
    return facts


def write_template(folder: Folder, template: FacingTemplate) -> None:
    """Write the template of a category's facing."""
    buffer = io.BytesIO()
    np.savez(buffer, mean=template.mean, direction=template.direction, sharpness=template.sharpness)
    folder.write_bytes(TEMPLATE, buffer.getvalue())


def read_template(folder: Folder) -> FacingTemplate:
    """Return the template that `write_template` wrote."""
    with np.load(io.BytesIO(folder.read_bytes(TEMPLATE))) as arrays:
        return FacingTemplate(arrays["mean"], arrays["direction"], float(arrays["sharpness"]))
