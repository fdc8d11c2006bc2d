"""What the mirror images of a run's category are, for its report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import SAMPLE_PARTS, full_selection
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.methods.facing import DOUBTFUL, FACING, Facings
from ray_kplm.report.mirror_images import MirrorImages, choose_strips, pictures_of
from ray_kplm.run import Run
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.facing import evidence_text

_IMAGES = 2_000
"""Largest number of images among which the pictures are chosen."""
_SAMPLE = 43
"""Of the seed of these images."""


def mirror_images(run: Run, dataset: Dataset) -> MirrorImages | None:
    """Return what the run found mirror images to be, with pictures of training images if they face either way.

    None for a run that did not look, since the configuration says it.
    """
    facts = run.manifest(FACING)
    if facts is None:
        return None
    line = evidence_text(facts)
    if facts["mirror"] != "facing":
        return MirrorImages(line)
    selection = full_selection(dataset.parts(TRAIN), dataset.rows(TRAIN))
    selection = selection.sample(_IMAGES, (run.config.seed, _SAMPLE), SAMPLE_PARTS)
    images, facings, found = dataset.images(TRAIN), Facings(run.unit(FACING)), []
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        found.append(facings.of(part, images.read_table(part, ["image_id"]).take(rows)["image_id"].to_pylist()))
    strips = choose_strips(np.concatenate(found), DOUBTFUL, run.config.seed)
    shown = np.unique(np.concatenate([strip.rows for strip in strips]))
    starts = np.cumsum([0, *map(len, selection.rows)])
    pictures: dict[int, NDArray[np.uint8]] = {}
    for part, rows, first in zip(selection.parts, selection.rows, starts, strict=False):
        here = shown[(shown >= first) & (shown < first + len(rows))]
        if len(here):
            encoded = images.read_table(part, ["image"]).take(rows[here - first])["image"]
            pictures |= {row: decode_crop(e) for row, e in zip(here.tolist(), encoded, strict=True)}
    return MirrorImages(line, pictures_of(strips, pictures))
