"""COCO keypoints: any data set in COCO's keypoint format (cocodataset.org/#format-data).

    annotations/person_keypoints_train2017.json, annotations/person_keypoints_val2017.json
    train2017/000000000139.jpg ..., val2017/...

or any annotations/*.json whose names have the words train and val (or test); a single file is split by image. With a test
file, val is trained on. A JSON holds images (id, file_name, width, height), annotations (image_id, category_id, keypoints: x y
v each, bbox: x y width height, iscrowd), and categories (id, keypoints: names). Each annotated object is a crop. Crowds and
objects without a labelled keypoint are left out. v is 0 not labelled (NaN), 1 hidden, 2 visible. A row that cannot be used is
rejected.

Pictures are in the folder of the last word of the JSON's name (train2017), in that folder below images/, in images/, beside the
JSON, or where their file names say.
"""

from __future__ import annotations

import posixpath

from ray_kplm.datasets.dataset import IngestOptions, Listing, split_of
from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.readers.coco_objects import CocoObjects
from ray_kplm.datasets.readers.coco_rows import read_categories, rows_of
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout
from ray_kplm.datasets.split_names import VAL, roles_in, split_of_role
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

COCO = Distribution("COCO", "https://cocodataset.org/#download", "annotations CC BY 4.0; pictures under Flickr's terms")


def list_coco(source: Folder, options: IngestOptions) -> Listing:
    """List a data set in COCO's keypoint format."""
    layout = Layout(source, COCO, options)
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    reader: CocoObjects | None = None
    files = _files(layout)
    for file, split in files.items():
        content = layout.json(file)
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            raise DataError(f"{source}/{file} is no COCO annotation: it needs images, annotations and categories")
        categories, faults = read_categories(rows_of(content, "categories", f"{source}/{file}"), f"{source}/{file}")
        for row, reason in faults:
            layout.reject(f"{file}: {row}", f"bad annotation: {file}, {row}: {reason}")
        if reader is None:
            reader = CocoObjects(layout, categories.names)
        elif reader.names != categories.names:
            raise DataError(
                f"{source}/{file}: its keypoints differ from those of the other files; ingest them one by one"
            )
        for sample in reader.read(file, content, categories):
            splits[split or split_of(sample.path, options)].append(sample)
    assert reader is not None
    _check_overlap(layout, reader, files)
    layout.notes += reader.left_out()
    return layout.listing(splits, reader.names, BOX_SIZE)


def _files(layout: Layout) -> dict[str, str | None]:
    """Return the annotation files and the split of each; None: the split is drawn by image."""
    folder = layout.locate("annotations")
    every = layout.files(folder, (".json",))
    paths = [path for path in every if "person_keypoints" in path] or every
    if not paths:
        layout.locate("annotations/person_keypoints_train2017.json")
    roles = {path: roles_in(posixpath.splitext(posixpath.basename(path))[0]) for path in paths}
    if len(paths) == 1:
        if roles[paths[0]]:
            layout.notes.append(f"{paths[0]} is the only file of annotations: the test split is drawn from it")
        return dict.fromkeys(paths)
    odd = next((path for path, said in roles.items() if len(said) != 1), None)
    if odd is not None:
        raise DataError(
            f"{layout.source}/{odd}: of several files each name must say train, val or test, one of them, as a word of its "
            "own; rename it"
        )
    found = set().union(*roles.values())
    if VAL in found and TEST in found:
        layout.decided("val is trained on")
        layout.notes.append("the files of val are used for training, as there are files of test")
    return {path: split_of_role(said.copy().pop(), found) for path, said in roles.items()}


def _check_overlap(layout: Layout, objects: CocoObjects, split_of_file: dict[str, str | None]) -> None:
    """Refuse files of which several hold the same objects, or the same pictures for training and for testing.

    Raises:
        DataError: There are some, as where a data set has alternative splits.
    """
    for picture, files in objects.files_of.items():
        if len({split_of_file[file] for file in files}) > 1:
            pair = " and ".join(sorted(files)[:2])
            what = f"{pair} are of both splits and have the same pictures, e.g. {picture}"
            break
    else:
        if not objects.repeats:
            return
        (first, other), count = objects.repeats.most_common(1)[0]
        what = f"{first} and {other} have {count} objects in common"
    raise DataError(
        f"{layout.source}: {what}; if they are alternative splits, keep the files of one in annotations/ and move the "
        "others away"
    )
