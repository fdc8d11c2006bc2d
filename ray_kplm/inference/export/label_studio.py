"""Predicted landmarks as tasks of Label Studio with predictions, streamed, and the labelling configuration that they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ray_kplm.inference.export.predictions import Object, Picture, Predictions
from ray_kplm.inference.export.written_files import write_text
from ray_kplm.methods.visibility import ABSENT
from ray_kplm.points.layout import Layout
from ray_kplm.storage import Folder

FOLDER = "label_studio"
LOCAL_FILES = "/data/local-files/?d="
"""What stands before a path below Label Studio's folder of local files."""


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `label_studio/tasks.json` and `label_studio/config.xml`."""
    write_text(target / FOLDER, "config.xml", [_config(found.layout)])
    write_text(target / FOLDER, "tasks.json", _tasks(found))
    return []


def _tasks(found: Predictions) -> Iterator[str]:
    model = f"ray_kplm {found.version} {found.detector[:16]}".strip()
    yield "["
    for index, picture in enumerate(found.pictures()):
        regions, scores = list[dict[str, Any]](), list[float]()
        for number, given in enumerate(picture.objects):
            one = given.inside(picture.width, picture.height)
            scores.append(one.score)
            regions += _regions(one, picture, found.layout, number, is_one_of_several=len(picture.objects) > 1)
        prediction = {"model_version": model, "score": round(max(scores), 5), "result": regions}
        task = {"data": {"image": LOCAL_FILES + quote(picture.file)}, "predictions": [prediction]}
        yield (",\n" if index else "\n") + json.dumps(task, allow_nan=False)
    yield "\n]\n"


def _regions(
    one: Object, picture: Picture, layout: Layout, number: int, *, is_one_of_several: bool
) -> Iterator[dict[str, Any]]:
    """Yield the regions of an object: a point for each landmark that is not absent.

    Of several objects in a picture each has a box, too, with relations to its points. Coordinates are percent of the
    picture's width and height from its border, so 0.5 is added to our pixels.
    """
    shared = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    box_id = f"object-{number}"
    left, top, width, height = (
        round(100 * value / size, 5)
        for value, size in zip(_from_border(one.extent()), (picture.width, picture.height) * 2, strict=True)
    )
    present = [k for k in range(len(layout)) if one.flags[k] > ABSENT]
    if is_one_of_several and present:
        box = {"x": left, "y": top, "width": width, "height": height, "rotation": 0}
        value: dict[str, Any] = {**box, "rectanglelabels": [layout.category]}
        yield {
            "id": box_id,
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            **shared,
            "value": value,
        }
    for k in present:
        x, y = ((one.xy[k] + 0.5) / (picture.width, picture.height) * 100).round(5).tolist()
        value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [layout.names[k]]}
        region = {"id": f"{box_id}-{k}", "from_name": "landmarks", "to_name": "image", "type": "keypointlabels"}
        yield {**region, **shared, "value": value, "score": round(float(one.likelihood[k]), 5)}
        if is_one_of_several:
            yield {"type": "relation", "from_id": box_id, "to_id": region["id"], "direction": "right"}


def _from_border(extent: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, width, height = extent
    return x + 0.5, y + 0.5, width, height


def _config(layout: Layout) -> str:
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in layout.names)
    return f"""<View>
  <Image name="image" value="$image"/>
  <KeyPointLabels name="landmarks" toName="image">
{labels}
  </KeyPointLabels>
  <RectangleLabels name="box" toName="image">
    <Label value={quoteattr(layout.category)}/>
  </RectangleLabels>
</View>
"""
