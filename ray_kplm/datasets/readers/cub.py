"""CUB-200-2011: birds of 200 species with fifteen parts (Wah et al. 2011).

The authors' layout (README of CUB_200_2011.tgz):

    CUB_200_2011/images.txt                image id, path below images/
    CUB_200_2011/train_test_split.txt      image id, 1 training | 0 test
    CUB_200_2011/bounding_boxes.txt        image id, x, y, width, height
    CUB_200_2011/parts/parts.txt           part id, name (two words for some)
    CUB_200_2011/parts/part_locs.txt       image id, part id, x, y, 1 visible | 0 (and then x y are 0)

Which images (thesis 2.7, after Lorenz et al. 2019): "remove seabird species and ... aligning parity using eye visibility
information". Neither lists the species; left out here are the seabird families among the 200, by name (`SEABIRDS`).
Parity: a bird of which only the right eye is visible is stored mirrored, with left and right parts exchanged, so that all birds
seen from the side look to the left. Split: the authors' own.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.readers.layout import BOX_SIZE, Distribution, Layout, mirror_pairs, parse_numbers
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

CUB = Distribution(
    "CUB-200-2011",
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    "non-commercial research and education; the pictures are Flickr users' own",
)
LANDMARKS = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left_eye",
    "left_leg",
    "left_wing",
    "nape",
    "right_eye",
    "right_leg",
    "right_wing",
    "tail",
    "throat",
)
SEABIRDS = re.compile(
    "Albatross|Auklet|Cormorant|Frigatebird|Fulmar|Guillemot|_Gull/|Jaeger|Kittiwake|Pelican|Puffin|_Tern/",
    re.IGNORECASE,
)
"""Albatrosses, auks, cormorants, frigatebirds, fulmars, gulls, skuas, pelicans and terns, in `014.Indigo_Bunting/...`."""


def list_cub(source: Folder, options: IngestOptions) -> Listing:
    """List CUB-200-2011 without seabirds."""
    layout = Layout(source, CUB, options)
    root = layout.locate("CUB_200_2011/images.txt", "images.txt").removesuffix("images.txt")
    paths = {image: words[0] for image, words in layout.table(f"{root}images.txt", least=2).items()}
    split_words = layout.table(layout.locate(f"{root}train_test_split.txt"), least=2)
    training = {image: words[0] for image, words in split_words.items()}
    boxes = {row: words[:4] for row, words in layout.table(layout.locate(f"{root}bounding_boxes.txt"), least=5).items()}
    names = _part_names(layout, layout.locate(f"{root}parts/parts.txt"))
    parts: dict[str, list[list[str]]] = {}
    for row in layout.rows(layout.locate(f"{root}parts/part_locs.txt"), least=5):
        parts.setdefault(row[0], []).append(row)
    layout.files(layout.locate(f"{root}images"))
    for name, of_image in (("splits", training), ("boxes", boxes), ("parts", parts)):
        layout.match(name, len(of_image.keys() & paths.keys()), len(paths))
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for image, path in paths.items():
        if SEABIRDS.search(path):
            continue
        try:
            if image not in boxes or image not in parts or image not in training:
                raise DataError("no box, parts or split")
            x, y, width, height = parse_numbers(boxes[image])
            xy, mirrored = _with_parity(_parts(parts[image], names))
        except DataError as error:
            layout.reject(path, str(error))
            continue
        box = (x, y, x + width, y + height)
        sample = Sample(path, f"{root}images/{path}", box, annotation={"landmarks": xy}, mirrored=mirrored)
        splits[TRAIN if training[image] == "1" else TEST].append(sample)
    return layout.listing(splits, LANDMARKS, BOX_SIZE)


def _part_names(layout: Layout, path: str) -> dict[str, int]:
    """Return the index in LANDMARKS of each part id."""
    known = {row[0]: "_".join(row[1:]) for row in layout.rows(path, least=2)}
    unknown = set(LANDMARKS).symmetric_difference(known.values())
    if unknown:
        names = ", ".join(sorted(unknown))
        raise DataError(f"{layout.source}/{path}: parts {names} differ from the authors'; download it again")
    return {part: LANDMARKS.index(name) for part, name in known.items()}


def _parts(rows: list[list[str]], names: dict[str, int]) -> NDArray[np.float64]:
    """Return the landmarks (15, 2) of one bird's lines in part_locs.txt, NaN where not visible."""
    xy = np.full((len(LANDMARKS), 2), np.nan)
    for _, part, x, y, visible, *_ in rows:
        if visible == "1" and part in names:
            xy[names[part]] = parse_numbers((x, y))
    return xy


def _with_parity(xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Return the landmarks (15, 2) by their names in the picture as stored, and whether that is the mirror image."""
    visible = np.asarray(np.isfinite(xy).all(axis=1))
    mirrored = bool(visible[LANDMARKS.index("right_eye")] and not visible[LANDMARKS.index("left_eye")])
    if mirrored:
        order = np.arange(len(LANDMARKS))
        for left, right in mirror_pairs(LANDMARKS):
            order[left], order[right] = right, left
        xy = xy[order]
    return xy, mirrored
