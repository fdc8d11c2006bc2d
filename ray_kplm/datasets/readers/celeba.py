"""CelebA with MAFL: aligned faces, 178 x 218 px, five landmarks (Liu et al. 2015; Zhang et al. 2014).

The layout of the authors' folders (the README of CelebA; MAFL in the repository of TCDCN):

    Img/img_align_celeba/000001.jpg ...
    Anno/list_landmarks_align_celeba.txt      a count, ten column names, then per line: image, ten integers x y
    Eval/list_eval_partition.txt              image, 0 training | 1 validation | 2 test
    MAFL/training.txt, MAFL/testing.txt       one image a line

Split (thesis 2.7: "we evaluate our method on the MAFL subset, which is excluded from the training split", and the released
DataSource/CelebA.py): train is the training partition without MAFL's test images, test is MAFL's test images. The attribute
`mafl` is 1 for images of MAFL's two lists, so that a regressor can be fitted on its training images alone.

Crop: the authors give boxes only for the pictures before alignment, and the released code has boxes of its own face detector.
Aligned faces are at the same place in all pictures, so one box is used for all. With the default margin the crop is the square
over the whole width that the literature uses (rows 30 to 207 of Thewlis et al. 2019, whose inner 70 % is the box).
Pictures that were enlarged or shrunk as a whole are read too; those of another shape, such as CelebA-HQ's, are rejected.
"""

from __future__ import annotations

from ray_kplm.datasets.dataset import IngestOptions, Listing
from ray_kplm.datasets.ingest_source import Box, Sample
from ray_kplm.datasets.readers.layout import Distribution, Layout, interlandmark_distance, parse_points
from ray_kplm.errors import DataError
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.storage import Folder

CELEBA = Distribution(
    "CelebA", "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html", "non-commercial research, no redistribution"
)
MAFL = Distribution(
    "MAFL's lists",
    "https://github.com/zhzhanp/TCDCN-face-alignment/tree/master/MAFL",
    "non-commercial research, as CelebA",
)
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
FACE: Box = (27.0, 57.0, 150.0, 180.0)
"""The aligned face, the same in every picture."""
ALIGNED = (178, 218)
"""Width and height of the aligned pictures, px."""

_TRAINING = "0"  # of list_eval_partition.txt


def list_celeba(source: Folder, options: IngestOptions) -> Listing:
    """List CelebA with MAFL."""
    layout = Layout(source, CELEBA, options)
    folder = layout.locate("Img/img_align_celeba", "img_align_celeba", "Img/img_align_celeba_hq", "img_align_celeba_hq")
    landmarks = layout.table(_list(layout, "Anno/list_landmarks_align_celeba.txt"), skip=2)
    parts = layout.table(_list(layout, "Eval/list_eval_partition.txt"), least=2)
    partition = {image: words[0] for image, words in parts.items()}
    training = set(layout.names(layout.locate("MAFL/training.txt", "mafl_training.txt", origin=MAFL)))
    testing = set(layout.names(layout.locate("MAFL/testing.txt", "mafl_testing.txt", origin=MAFL)))
    layout.files(folder)
    layout.match("landmarks", len(landmarks.keys() & partition.keys()), len(partition))
    layout.match("MAFL's training list", len(training & partition.keys()), len(training))
    layout.match("MAFL's test list", len(testing & partition.keys()), len(testing))
    splits: dict[str, list[Sample]] = {TRAIN: [], TEST: []}
    for image, part in sorted(partition.items()):
        if part != _TRAINING and image not in testing:
            continue
        if image not in landmarks:
            layout.reject(image, "no landmarks")
            continue
        try:
            xy = parse_points(landmarks[image], len(LANDMARKS), image)
        except DataError as error:
            layout.reject(image, str(error))
            continue
        annotation = {"landmarks": xy, "mafl": float(image in training or image in testing)}
        sample = Sample(image, f"{folder}/{image}", FACE, annotation=annotation, size=ALIGNED)
        splits[TEST if image in testing else TRAIN].append(sample)
    return layout.listing(splits, LANDMARKS, interlandmark_distance(LANDMARKS, "left_eye", "right_eye"))


def _list(layout: Layout, path: str) -> str:
    """Return the path of a list, in its folder or directly in the source."""
    return layout.locate(path, path.rpartition("/")[2])
