"""Predicted landmarks as a YOLO pose data set: a text file for each picture, and data.yaml."""

from __future__ import annotations

import posixpath

import yaml

from ray_kplm.inference.export.predictions import Object, Picture, Predictions
from ray_kplm.inference.export.written_files import write_text
from ray_kplm.methods.visibility import ABSENT
from ray_kplm.storage import Folder

FOLDER = "yolo"


def write(found: Predictions, target: Folder) -> list[str]:
    """Write `yolo/data.yaml` and `yolo/labels/`; the pictures belong into `yolo/images/`, under their names.

    A label file has its picture's name with the extension .txt, and a line for each object that has landmarks. Of pictures
    whose names differ by the extension alone, the first has it; the others are returned in a note.
    """
    folder, first, lost = target / FOLDER, set[str](), list[str]()
    for picture in found.pictures():
        name = label_name(picture)
        if name in first:
            lost.append(picture.file)
            continue
        first.add(name)
        inside = (one.inside(picture.width, picture.height) for one in picture.objects)
        write_text(folder / "labels", name, (_line(one, picture) for one in inside if (one.flags > ABSENT).any()))
    write_text(folder, "data.yaml", [_data(found)])
    shown = f"{', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}"
    rule = "YOLO has one label file for pictures whose names differ by the extension alone: rename them"
    return [f"yolo: {len(lost)} pictures left out ({shown}); {rule}"] if lost else []


def label_name(picture: Picture) -> str:
    """Return the path of a picture's label file below `labels/`; that of a video's frame is `<video>_<frame>.txt`."""
    if picture.sequence is None or picture.frame is None:
        return f"{posixpath.splitext(picture.file)[0]}.txt"
    return f"{posixpath.splitext(picture.sequence)[0]}_{picture.frame}.txt"


def _line(one: Object, picture: Picture) -> str:
    """Return the line of an object that has landmarks: class, centre and size of its box, and x, y, v of each landmark.

    Coordinates are shares of the picture's width and height from its border, so 0.5 is added to our pixels.
    """
    width, height = picture.width, picture.height
    left, top, box_width, box_height = one.extent()
    box = [left + box_width / 2 + 0.5, top + box_height / 2 + 0.5, box_width, box_height]
    words = ["0", *(f"{value / size:.7f}" for value, size in zip(box, (width, height) * 2, strict=True))]
    for (x, y), v in zip(one.xy.tolist(), one.flags.tolist(), strict=True):
        words += [f"{(x + 0.5) / width:.7f}", f"{(y + 0.5) / height:.7f}", str(v)] if v > ABSENT else ["0", "0", "0"]
    return " ".join(words) + "\n"


def _data(found: Predictions) -> str:
    layout = found.layout
    data = {
        "train": "images",
        "val": "images",
        "kpt_shape": [len(layout), 3],
        "flip_idx": list(layout.partners),
        "names": {0: layout.category},
        "kpt_names": {0: list(layout.names)},
        "skeleton": [list(pair) for pair in layout.skeleton],
    }
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
