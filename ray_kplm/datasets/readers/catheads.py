"""Cat Heads: cats of the CAT data set with nine landmarks of the head (Zhang et al. 2008).

The authors' layout (the order of the numbers is from the data set's page at academictorrents.com):

    CAT_00/00000001_000.jpg ... CAT_06/...
    CAT_00/00000001_000.jpg.cat               "9" and nine x y: eyes, mouth, left ear 1 2 3, right ear 1 2 3

An ear's points go from left to right in the picture, so a mirror image exchanges left ear 1 with right ear 3.

Split (thesis 2.7: "the test-train split of [200] with 7747 training and 1257 testing images"): the two lists of Zhang et al.
2018, cat_train_images.txt and cat_test_images.txt, one image a line; images in neither are left out. An image is identified
by its number (00000001_000); the folder and the extension in a list are ignored. Box: the bounding box of the nine points, as
the authors give none.
"""

from __future__ import annotations

import re

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Sample, bounding_box
from ray_kplm.datasets.readers.layout import Distribution, Layout, interlandmark_distance, parse_points
from ray_kplm.datasets.readers.text_lists import decode_text
from ray_kplm.datasets.source_files import read_file
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

CAT = Distribution(
    "CatHeads", "https://archive.org/details/CAT_DATASET", "research; the pictures are Flickr users' own"
)
LISTS = Distribution(
    "the lists of Zhang et al. 2018 (cat_data.tar.gz, or two lists of your own, one image a line)",
    "http://files.ytzhang.net/lmdis-rep/release-v1/cat/cat_data.tar.gz",
    "research, as the data set",
)
EARS = tuple(f"{side}_ear_{number}" for side in ("left", "right") for number in (1, 2, 3))
LANDMARKS = ("left_eye", "right_eye", "mouth", *EARS)
SWAP_PAIRS = [[0, 1], [3, 8], [4, 7], [5, 6]]

_NUMBER = re.compile(r"\d{8}_\d{3}")


def list_catheads(source: Folder, options: IngestOptions) -> Listing:
    """List Cat Heads."""
    layout = Layout(source, CAT, options)
    layout.locate("CAT_00")
    lists = {}
    for split, name in ((TRAIN, "cat_train_images.txt"), (TEST, "cat_test_images.txt")):
        path = layout.locate(name, f"cat_data/{name}", origin=LISTS)
        lists[split] = [_number(image) for image in layout.names(path)]
    split_of = layout.splits_of(lists)
    pictures = [path for path in layout.files("") if path.startswith("CAT_")]
    annotated = set(layout.files("", (".cat",)))
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    listed = len(split_of)
    for path in pictures:
        number = _number(path)
        if number not in split_of:
            continue
        split = split_of.pop(number)
        if f"{path}.cat" in annotated:
            splits[split].append(Sample(path, path))
        else:
            layout.reject(path, "no landmarks")
    layout.match("the lists", listed - len(split_of), listed)
    for number in split_of:
        layout.reject(number, "missing: a list names it, and there is no such picture")
    nme = interlandmark_distance(LANDMARKS, "left_eye", "right_eye")
    return layout.listing(splits, LANDMARKS, nme, swap_pairs=SWAP_PAIRS, read_annotation=read_annotation)


def _number(path: str) -> str:
    """Return the number that identifies an image, or the path if it has none."""
    number = _NUMBER.search(path)
    return number.group() if number else path


def read_annotation(source: Folder, sample: Sample) -> Sample:
    """Add the landmarks of the picture's .cat file."""
    name = f"{sample.path}.cat"
    try:
        values = [float(word) for word in decode_text(read_file(source, name)).split()]
    except ValueError:
        raise DataError(f"bad annotation: {name} holds more than numbers") from None
    if not values or values[0] != len(LANDMARKS):
        raise DataError(f"bad annotation: {name} must start with {len(LANDMARKS)}")
    xy = parse_points(values[1:], len(LANDMARKS), name)
    return sample._replace(box=bounding_box(xy), annotation={"landmarks": xy})
