"""Label Studio: the JSON export of a project with keypoint labels (labelstud.io/guide/export)."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ray_kplm.errors import DataError
from ray_kplm.labels.annotation_file import AnnotatedObject, AnnotationFile

_UPLOAD = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""
_IMAGE = re.compile(r"\.\w{3,4}(\?|$)")


class _Point(NamedTuple):
    id: str
    parent: str | None
    name: str
    x: float
    y: float


class _Box(NamedTuple):
    id: str
    corners: tuple[float, float, float, float]

    def holds(self, point: _Point) -> bool:
        x0, y0, x1, y1 = self.corners
        return x0 <= point.x <= x1 and y0 <= point.y <= y1


class _Task(NamedTuple):
    image: str
    other_names: tuple[str, ...]
    size: tuple[int, int] | None
    points: list[_Point]
    boxes: list[_Box]


def read(content: list[Any], where: str) -> AnnotationFile:
    """Return the annotated objects of an export, in shares of the picture.

    Of several annotations of a task the last one that was not cancelled counts; predictions are no annotations. The points of a
    task are one object, unless it has several boxes: then those are an object that are related to a box, or lie in it alone.

    Args:
        content: The JSON.
        where: The file, for messages.

    Raises:
        DataError: It is no such export, or nothing is annotated.
    """
    if not any(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in content):
        raise DataError(f"{where}: its tasks have no data; export the project as JSON, and not as JSON-MIN")
    tasks, rejected, skipped = list[_Task](), list[tuple[str, str]](), Counter[str]()
    for number, task in enumerate(content, start=1):
        try:
            regions = _regions(task)
            if isinstance(regions, str):
                skipped[regions] += 1
            else:
                tasks.append(_task(task, regions))
        except (DataError, KeyError, TypeError, ValueError) as error:
            what = str(error) if isinstance(error, DataError) else f"cannot be read ({type(error).__name__}: {error})"
            rejected.append((f"task {task.get('id', number) if isinstance(task, dict) else number}", what))
    file = AnnotationFile(_names(tasks), rejected=rejected)
    for one in tasks:
        _add_objects(file, one)
    file.notes += [f"{count} of {len(content)} tasks {what}: left out" for what, count in skipped.items()]
    if not file.names:
        said = "; ".join(file.notes) or (f"{rejected[0][0]}: {rejected[0][1]}" if rejected else "it has no task")
        raise DataError(f"{where}: no task has an annotated keypoint ({said}); annotate some and export again as JSON")
    return file


def _regions(task: Any) -> list[dict[str, Any]] | str:
    """Return the regions of the annotation that counts, or why there is none."""
    if not isinstance(task, dict):
        raise DataError("is no task but " + type(task).__name__)
    done = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
    if not done:
        return "without an annotation" if not task.get("predictions") else "with predictions alone"
    last = max(done, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))
    latest = [one for one in done if one.get("updated_at") == last.get("updated_at")]
    return list(latest[-1].get("result") or [])


def _task(task: dict[str, Any], regions: list[dict[str, Any]]) -> _Task:
    image = _image_of(task["data"])
    relations = {r["to_id"]: r["from_id"] for r in regions if r.get("type") == "relation"}
    boxes_first = {r.get("id") for r in regions if r.get("type", "").startswith("rectangle")}
    relations |= {from_id: to_id for to_id, from_id in relations.items() if to_id in boxes_first}
    points, boxes, sizes = list[_Point](), list[_Box](), set[tuple[int, int]]()
    for region in regions:
        value, kind = region.get("value") or {}, region.get("type")
        if kind not in ("keypointlabels", "rectanglelabels", "rectangle"):
            continue
        if region.get("image_rotation"):
            raise DataError("the picture was turned in Label Studio; turn the image file itself and annotate it again")
        if region.get("original_width") and region.get("original_height"):
            sizes.add((int(region["original_width"]), int(region["original_height"])))
        x, y = float(value["x"]) / 100, float(value["y"]) / 100
        if kind == "keypointlabels":
            names = value.get("keypointlabels") or []
            if len(names) != 1:
                raise DataError(f"a point has {len(names)} labels; give each point one")
            parent = region.get("parentID") or relations.get(region.get("id"))
            points.append(_Point(str(region.get("id")), parent, str(names[0]), x, y))
        else:
            x1, y1 = x + float(value["width"]) / 100, y + float(value["height"]) / 100
            boxes.append(_Box(str(region.get("id")), (x, y, x1, y1)))
    if len(sizes) > 1:
        raise DataError(f"its regions are of pictures of {len(sizes)} sizes; annotate it again")
    name, *others = _spellings(image)
    return _Task(name, tuple(others), sizes.pop() if sizes else None, points, boxes)


def _image_of(data: dict[str, Any]) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    if "image" in texts:
        return texts["image"]
    likely = [value for value in texts.values() if _IMAGE.search(value)]
    if len(likely) != 1:
        raise DataError(f"data has no image, but {', '.join(sorted(data)) or 'nothing'}")
    return likely[0]


def _spellings(image: str) -> Iterator[str]:
    """Yield the names that an image may have below a folder of images, the likeliest first."""
    parts = urlsplit(image)
    inside = parse_qs(parts.query).get("d") if "local-files" in parts.path else None
    name = inside[0] if inside else unquote(parts.path) if "://" in image or image.startswith("/data/") else image
    yield name
    folder, base = posixpath.split(name)
    if _UPLOAD.match(base):
        yield posixpath.join(folder, _UPLOAD.sub("", base, count=1))


def _names(tasks: list[_Task]) -> tuple[str, ...]:
    """Return the labels in the order of the task that has most of them, and others as they come."""
    fullest = sorted(tasks, key=lambda task: -len({point.name for point in task.points}))
    return tuple(dict.fromkeys(point.name for task in fullest for point in task.points))


def _add_objects(file: AnnotationFile, task: _Task) -> None:
    groups: dict[str, list[_Point]] = {}
    boxes = {box.id: box for box in task.boxes}
    for point in task.points:
        group = _box_of(point, task.boxes)
        if group is None:
            reason = f"point {point.name} belongs to none of {len(boxes)} boxes; relate it to its box"
            file.rejected.append((task.image, reason))
        else:
            groups.setdefault(group, []).append(point)
    for group, points in groups.items():
        xy = np.full((len(file.names), 2), np.nan)
        twice = [name for name, count in Counter(point.name for point in points).items() if count > 1]
        if twice:
            reason = f"has several points named {twice[0]}; draw a box about each object and relate its points to it"
            file.rejected.append((task.image, reason))
            continue
        for point in points:
            xy[file.names.index(point.name)] = point.x, point.y
        corners = boxes[group].corners if group in boxes else (np.nan,) * 4
        visible = np.isfinite(xy).all(axis=1)
        file.objects.append(AnnotatedObject(task.image, xy, visible, corners, task.size, True, task.other_names))


def _box_of(point: _Point, boxes: list[_Box]) -> str | None:
    """Return the id of the box that a point belongs to; `""` without boxes, None if it belongs to none or to several."""
    if len(boxes) <= 1:
        return boxes[0].id if boxes else ""
    if any(box.id == point.parent for box in boxes):
        return point.parent
    about = [box.id for box in boxes if box.holds(point)]
    return about[0] if len(about) == 1 else None
