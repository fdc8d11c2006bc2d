"""Own points of a run whose network is untrained: its landmarks depend on the pixels, and the points on them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_kplm.analysis.adapt import LABELS, PICTURE, AdaptOptions, adapt
from ray_kplm.analysis.label_views import image_sizes, see_labels
from ray_kplm.analysis.point_set_list import FACTS, list_point_sets, read_facts, remove_point_set
from ray_kplm.detectors.stored import detector_fingerprint
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.labels.labels import Labels
from ray_kplm.labels.reading import read_labels
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.points.stored import LANDMARKS, POINTS_FILE, point_folder
from ray_kplm.run import Run

K = 5
NAMES = ("nose", "left_eye", "right_eye")
NAN = float("nan")


@pytest.fixture
def run(tmp_path, untrained_run) -> Run:
    return untrained_run(tmp_path, K)


@pytest.fixture
def labels(tmp_path, run) -> Labels:
    return made_labels(tmp_path, run, 12)


def made_labels(folder: Path, run: Run, number: int, size: tuple[int, int] = (90, 70)) -> Labels:
    """Pictures, and labels that are made of the landmarks of the run in them, with the noise of a hand."""
    rng = np.random.default_rng(0)
    names = []
    for n in range(number):
        few = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        names.append(str(folder / f"{n:02d}.png"))
        Image.fromarray(few).resize(size, Image.Resampling.BICUBIC).save(names[-1])
    detector = LandmarkDetector.load(run.folder.path, points=LANDMARKS)
    xy = np.stack([one.xy for one in detector.predict(names)]).astype(np.float64)
    points = (
        np.stack([xy[:, :2].mean(1), xy[:, 3], xy[:, 4] * 0.5 + xy[:, 2] * 0.5], 1)
        + rng.normal(size=(number, 3, 2)) * 0.1
    )
    return Labels(
        NAMES, tuple(names), points, np.ones((number, 3), bool), np.full((number, 4), NAN), ((0, 1), (0, 2))
    )  # fmt: skip


def changed(labels: Labels, rows=slice(None), **changes) -> Labels:
    plain = {"xy": labels.xy[rows], "visible": labels.visible[rows], "boxes": labels.boxes[rows]}
    return Labels(
        **{"names": labels.names, "images": labels.images[rows], **plain, "skeleton": labels.skeleton, **changes}
    )


def test_points_are_fitted_kept_and_predicted(run, labels):
    done = adapt(run, labels, AdaptOptions("face"))
    assert done.is_new
    facts = done.facts
    assert [row["name"] for row in facts["table"]] == list(NAMES)
    assert [row["partner"] for row in facts["table"]] == [None, "right_eye", "left_eye"]
    assert facts["objects"] == facts["images"] == facts["groups"] == 12
    assert facts["error_pixels"] < 5
    assert [row["labels"] for row in facts["curve"]] == [3, 5, 7, 9]
    folder = point_folder(run.folder, "face")
    assert set(folder.names()) >= {POINTS_FILE, FACTS, LABELS, PICTURE}
    assert Image.open(f"{folder.path}/{PICTURE}").width == 6 * 208
    detector = LandmarkDetector.load(run.folder.path, points="face")
    assert detector.names == NAMES
    assert detector.layout.skeleton == ((0, 1), (0, 2))
    found = np.stack([one.xy for one in detector.predict(list(labels.images))])
    assert np.linalg.norm(found - labels.xy, axis=-1).mean() < 3
    assert detector_fingerprint(run, "face") != detector_fingerprint(run, LANDMARKS)


def test_errors_are_in_pixels_of_the_pictures(tmp_path, run):
    small = adapt(run, made_labels(tmp_path, run, 8, (64, 64)), AdaptOptions("small")).facts
    (tmp_path / "big").mkdir()
    large = adapt(run, made_labels(tmp_path / "big", run, 8, (640, 640)), AdaptOptions("large")).facts
    assert large["error_pixels"] / small["error_pixels"] > 5 * large["error"] / small["error"]


def test_the_labels_that_were_used_are_kept_as_coco(run, labels):
    labels.xy[4, 1] = NAN
    adapt(run, labels, AdaptOptions("face"))
    read = read_labels(f"{point_folder(run.folder, 'face').path}/{LABELS}")
    assert read.names == NAMES
    np.testing.assert_allclose(read.xy, labels.xy, atol=1e-3)


def test_the_same_labels_are_not_fitted_again_and_others_keep_the_earlier_set(run, labels):
    first = adapt(run, changed(labels, slice(8)), AdaptOptions("face"))
    again = adapt(run, changed(labels, slice(8)), AdaptOptions("face"))
    assert not again.is_new
    assert again.facts["version"] == first.facts["version"] == 1
    folder = point_folder(run.folder, "face")
    before = folder.read_bytes(POINTS_FILE)
    assert adapt(run, labels, AdaptOptions("face")).facts["version"] == 2
    assert (folder / "versions" / "0001").read_bytes(POINTS_FILE) == before
    assert [(row["name"], row["objects"]) for row in list_point_sets(run)] == [("face", 12)]
    remove_point_set(run, "face")
    assert list_point_sets(run) == []
    assert read_facts(folder) is None
    with pytest.raises(DataError, match=r"--remove face: .* has no such points; it has none"):
        remove_point_set(run, "face")
    with pytest.raises(ConfigError, match="--name edited"):
        remove_point_set(run, "edited")


def test_unusable_images_are_listed_and_the_others_used(tmp_path, run, labels):
    Path(labels.images[2]).write_bytes(b"no image")
    facts = adapt(run, changed(labels, rejected=(("lost.png", "not found"),)), AdaptOptions("face")).facts
    assert facts["objects"] == 11
    assert [name for name, _ in facts["rejected"]] == ["lost.png", labels.images[2]]
    assert json.loads((tmp_path / "run/points/face" / LABELS).read_text())["images"][2]["file_name"].endswith("03.png")


def test_copies_of_an_image_are_one_group(run, labels):
    twice = changed(labels, images=labels.images[:6] * 2, xy=np.concatenate([labels.xy[:6]] * 2))
    facts = adapt(run, twice, AdaptOptions("face")).facts
    assert (facts["objects"], facts["groups"]) == (12, 6)


def test_a_point_of_two_images_is_left_out(run, labels):
    labels.xy[2:, 0] = NAN
    done = adapt(run, labels, AdaptOptions("eyes"))
    assert done.facts["left_out"] == ["nose: labelled in 2 images, 2 of them different, and 3 are needed: left out"]
    assert done.points.layout.names == NAMES[1:]
    assert done.points.layout.partners == (1, 0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: changed(x, slice(2)), "2 labelled images: 3 are needed at least"),
        (lambda x: changed(x, names=("nose", "nose", "eye")), "nose: several points have this name"),
        (lambda x: changed(x, xy=x.xy[:, [0, 0, 1]]), "nose and left_eye: are at the same place in all 12 images"),
        (lambda x: changed(x, images=("gone.png",) * 12), "none of 12 labelled images can be used, e.g. gone.png"),
        (
            lambda x: changed(x, images=x.images[:1] * 12),
            "no point is labelled in more than 12 images, 1 of them different: 3 are needed; label more",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_leaves_nothing(run, labels, change: Callable[[Labels], Labels], text):
    with pytest.raises(DataError, match=text):
        adapt(run, change(labels), AdaptOptions("face"))
    assert list_point_sets(run) == []


def test_boxes_are_used_if_the_error_is_lower_then(run, labels):
    box = np.tile([10.0, 10, 50, 50], (12, 1))
    boxed, detector = changed(labels, boxes=box), LandmarkDetector.load(run.folder.path, points=LANDMARKS)
    whole, cropped = (see_labels(detector, boxed, boxes=boxes, margin=0.2) for boxes in (False, True))
    assert whole.pixels[0] == pytest.approx(90)
    assert cropped.pixels[0] == pytest.approx(56, abs=3)
    found = detector.predict(list(labels.images), box)
    scale = cropped.pixels[0] * (cropped.targets[0, 1] - cropped.xy[0, 3])
    np.testing.assert_allclose(scale, labels.xy[0, 1] - found[0].xy[3], atol=1e-3)
    assert not adapt(run, boxed, AdaptOptions("whole")).facts["boxes"]
    inside = np.stack([one.xy[:3] for one in found]).astype(np.float64)
    facts = adapt(run, changed(boxed, xy=inside), AdaptOptions("cropped")).facts
    assert facts["boxes"]
    assert facts["error"] < adapt(run, changed(boxed, xy=inside), AdaptOptions("cropped", boxes=False)).facts["error"]


def test_sizes_are_those_of_the_upright_pictures(labels):
    assert image_sizes(labels) == dict.fromkeys(labels.images, (90, 70))
    assert image_sizes(changed(labels, images=("gone.png",) * 12)) == {}
