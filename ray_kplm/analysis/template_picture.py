"""A picture of the template of a `method.kind: template` run, or of any image's keypoints with their numbers."""

from __future__ import annotations

import numpy as np

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import ConfigError, RunError
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.imaging.draw import draw_landmarks, encode_png
from ray_kplm.run import Run
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.align import TEMPLATE, Align
from ray_kplm.steps.recorder import record


def template_picture(run: Run, image_id: str | None = None) -> tuple[str, bytes]:
    """Return an image's id and the image with its numbered keypoints as PNG.

    Args:
        run: of `method.kind: template`.
        image_id: any image of the last round; by default the run's template.

    Raises:
        RunError: the rounds are not finished.
        ConfigError: there is no such image.
    """
    dataset = Dataset.open(run.config.dataset)
    recording = record(run, dataset)
    align = next((task for task in recording if isinstance(task, Align)), None)
    if align is None:
        raise RunError(f"{run.folder}: method.kind = {run.config.method.kind!r} has no template")
    if align.keypoints.step.manifest() is None:
        raise RunError(f"{run.folder}: its rounds are not finished; kplm train continues them")
    if image_id is None:
        if not align.folder.is_file(TEMPLATE):
            raise RunError(f"{run.folder}: no template yet; name an image, or continue with kplm train")
        image_id = str(align.folder.read_json(TEMPLATE)["image_id"])
    selection = align.context.selection(align.context.stage2)
    for part, rows in zip(selection.parts, selection.rows, strict=True):
        table = dataset.images(TRAIN).read_table(part, ["image_id", "image"]).take(rows)
        names = table["image_id"].to_pylist()
        if image_id in names:
            points = align.keypoints.folder.read_table(part, ["xy"])["xy"].to_pylist()[names.index(image_id)]
            image = decode_crop(table["image"][names.index(image_id)])
            drawn = draw_landmarks(image, np.asarray(points, np.float64).reshape(-1, 2), scale=4, numbers=True)
            return image_id, encode_png(drawn)
    raise ConfigError(f"{image_id!r}: no such image in {run.folder}'s last round; for example {names[0]!r}")
