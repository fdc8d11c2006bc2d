"""The field's protocols: that they name what they need, score what they name, and quote the thesis rightly."""

import re

import numpy as np
import pytest

from ray_kplm.datasets.landmark_arrays import LandmarkArrays
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.evaluation import protocols
from ray_kplm.evaluation.annotation import annotated_set, count_points
from ray_kplm.evaluation.buckets import bucketed
from ray_kplm.evaluation.protocol_scores import protocol_scores
from ray_kplm.evaluation.protocols import PROTOCOLS, body_sigmas, find, resolve
from ray_kplm.evaluation.published import PUBLISHED

AFLW = [f"other_{i}" for i in range(16)]
NAMES = {
    "aflw": ["mouth_right_corner", *AFLW, "left_eye_center", "right_eye_center", "nose_center", "mouth_left_corner"],
    "catheads": [
        "left_eye",
        "right_eye",
        "mouth",
        *(f"{side}_ear_{i}" for side in ("left", "right") for i in (1, 2, 3)),
    ],
}
IMAGES = 60


def names_of(protocol):
    return NAMES.get(protocol.name, list(protocol.points)[::-1])


def arrays(names, seed, hidden=()):
    """One shape that moves, turns and grows, in crops of 128 px, with yaw from -90 to 90 degrees."""
    rng = np.random.default_rng(seed)
    shape = np.array([np.random.default_rng(sum(map(ord, name))).uniform(-40, 40, 2) for name in names])
    turned = shape @ np.array([[0, 1], [-1, 0]])
    grow, turn = 1 + 0.1 * rng.normal(size=(IMAGES, 1, 1)), 0.3 * rng.normal(size=(IMAGES, 1, 1))
    landmarks = (64 + grow * shape + turn * turned + rng.normal(scale=4, size=(IMAGES, 1, 2))).astype(np.float32)
    visible = np.ones((IMAGES, len(names)), bool)
    visible[:, list(hidden)] = False
    boxes = np.tile(np.array([10, 10, 110, 110], np.float32), (IMAGES, 1))
    sizes = np.full((IMAGES, 2), 128, np.int32)
    ids = [str(i) for i in range(IMAGES)]
    return LandmarkArrays(ids, landmarks, boxes, sizes, visible, {"yaw": np.linspace(-90, 90, IMAGES)})


def scores(protocol, names, discover, seed=0):
    scoring = resolve(protocol, names)
    parts = []
    for part in (arrays(names, seed), arrays(names, seed + 1)):
        truth = annotated_set(part, scoring)
        discovered = discover(part.landmarks.astype(np.float64))
        parts.append(
            type(truth)(**{**vars(truth), "discovered": discovered, "confidence": np.ones(discovered.shape[:2])})
        )
    by = [bucketed(text, arrays(names, seed + 1).attributes) for text in protocol.by]
    return protocol_scores(protocol, scoring, *parts, by=by)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_landmarks_on_the_points_are_perfect_by_every_protocol(name):
    protocol = PROTOCOLS[name]
    shuffle = np.random.default_rng(3).permutation(len(names_of(protocol)))
    found = scores(protocol, names_of(protocol), lambda truth: truth[:, shuffle])
    for figure, value in found["figures"].items():
        if figure.startswith("forward_nme"):
            assert 0 <= value < 5, figure  # the ridge alone
        elif figure.startswith("oks"):
            assert value == pytest.approx(1), figure
        elif not figure.startswith("backward_nme"):
            assert value == pytest.approx(100), figure
    assert found["points"] == list(protocol.points)
    quoted = {figure for row in PUBLISHED[name] for figure in row.figures}
    assert quoted <= set(found["figures"])


@pytest.mark.parametrize("name", ["human36m", "bbcpose"])
def test_landmarks_far_from_the_points_are_not_perfect(name):
    protocol = PROTOCOLS[name]
    found = scores(protocol, names_of(protocol), lambda truth: truth + 60.0)["figures"]
    assert found["raw_accuracy/average"] < 30
    assert found["forward_nme/all"] < 5  # a shift is nothing to a regressor


def test_the_order_of_landmarks_does_not_matter():
    protocol = PROTOCOLS["human36m"]
    names = names_of(protocol)
    order = np.random.default_rng(1).permutation(len(names))
    part = arrays(names, 0)
    mixed = part._replace(landmarks=part.landmarks[:, order], visible=part.visible[:, order])
    straight = annotated_set(part, resolve(protocol, names))
    other = annotated_set(mixed, resolve(protocol, [names[i] for i in order]))
    for field in ("truth", "normaliser", "torso", "area"):
        np.testing.assert_array_equal(getattr(straight, field), getattr(other, field))
    left, right = (part.landmarks[:, names.index(f"{side}_shoulder")] for side in ("left", "right"))
    np.testing.assert_allclose(straight.normaliser, np.linalg.norm(left - right, axis=-1), rtol=1e-6)
    assert straight.area.tolist() == pytest.approx([100.0 * 100.0] * IMAGES)


def test_case_spaces_and_hyphens_do_not_matter():
    given = ["Left Eye", "right-eye", "NOSE", "Left Mouth", "right_mouth"]
    assert resolve(PROTOCOLS["mafl"], given).points == [0, 1, 2, 3, 4]


def test_missing_landmarks_are_named_in_one_line():
    with pytest.raises(
        DataError, match=r"has no landmark nose, left_mouth; .*now holds left_eye, right_eye, right_mouth"
    ) as e:
        resolve(PROTOCOLS["mafl"], ["left_eye", "right_eye", "right_mouth"])
    assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="--protocol wflw: no such protocol; choose one of mafl, aflw"):
        find("wflw")


def test_tips_of_cat_ears_are_not_scored():
    scoring = resolve(PROTOCOLS["catheads"], NAMES["catheads"])
    assert [NAMES["catheads"][i] for i in range(9) if i not in scoring.points] == ["left_ear_2", "right_ear_2"]


def test_hidden_points_are_left_out_where_the_protocol_says_so():
    names = names_of(PROTOCOLS["pennaction"])
    part = arrays(names, 0, hidden=[0, 3])
    strict = resolve(PROTOCOLS["pennaction"], names)
    truth = annotated_set(part, strict).truth
    assert np.isnan(truth[:, strict.points.index(0)]).all()
    assert np.isfinite(truth[:, strict.points.index(1)]).all()
    assert count_points(part, strict) == {
        "annotated": 13 * IMAGES, "hidden": 2 * IMAGES, "scored": 11 * IMAGES, "not_annotated": 0
    }  # fmt: skip
    all_of_them = resolve(PROTOCOLS["pennaction"], names, visible_only=False)
    assert np.isfinite(annotated_set(part, all_of_them).truth).all()
    assert count_points(part, all_of_them)["scored"] == 13 * IMAGES


def test_sigmas_are_those_of_coco():
    assert body_sigmas(["head", "left_shoulder", "Right Ankle"]) == [0.026, 0.079, 0.089]
    assert body_sigmas(["left_eye", "left_mouth"]) is None


def test_groups_are_of_points_that_are_scored():
    for protocol in PROTOCOLS.values():
        assert {point for points in protocol.groups.values() for point in points} <= set(protocol.points), protocol.name


def test_quoted_averages_are_those_of_the_quoted_groups():
    """A slip of the pen in `published` would show here: the thesis gives both (Tables 5.2, 6.9, 6.11)."""
    checked = 0
    slack = {("human36m", "chapter 5"): 0.17}  # the thesis' own: 70.35 for six that have a mean of 70.52
    for name, rows in PUBLISHED.items():
        for row in rows:
            for metric in ("regressed_accuracy", "raw_accuracy", "pck"):
                values = {k: v for k, v in row.figures.items() if k.startswith(f"{metric}/")}
                average = values.pop(f"{metric}/average", None)
                if average is not None and values:
                    allowed = slack.get((name, row.method), 0.06)
                    assert np.mean(list(values.values())) == pytest.approx(average, abs=allowed), (row, metric)
                    checked += 1
    assert checked == 10
    for method, metric in (("Jakab", "regressed_accuracy"), ("Jakab, raw", "raw_accuracy")):
        [row] = [row.figures for row in PUBLISHED["bbcpose"] if row.method == method]
        head, *twice = (row[f"{metric}/{group}"] for group in ("Head", "Shoulders", "Elbows", "Hands"))
        assert (head + 2 * sum(twice)) / 7 == pytest.approx(row[f"{metric}/points"], abs=0.006)


def test_the_module_documents_the_names_that_readers_give():
    for protocol in PROTOCOLS.values():
        for name in protocol.points:
            parts = [name, *re.split(r"_(?=[a-z])", name)] if not name.isdigit() else ["0 ... 67"]
            assert any(part in protocols.__doc__ for part in parts), name
