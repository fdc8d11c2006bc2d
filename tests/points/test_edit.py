"""What a points file means, and each way in which it can be wrong: one line with the line, the key and the way out."""

import numpy as np
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.methods.predicted import Predicted
from ray_kplm.points.edit import read_edit

FLIP = [5, 4, 3, 2, 1, 0, -1, 7, 9, 8]


def read(text: str):
    return read_edit(text.encode(), "points.yaml", FLIP)


WHOLE = """# my points
points:
  - {landmark: 3, name: nose}
  - {landmarks: [4, 9], name: left_eye, partner: right_eye}   # merged
  - {landmark: 5, name: right_eye}
  - landmark: 6
dropped: [0, 1]
edges: [[nose, left_eye], [right_eye, nose]]
"""


def test_points_are_named_merged_dropped_and_joined():
    edit = read(WHOLE)
    assert edit.layout.names == ("nose", "left_eye", "right_eye", "landmark_6")
    assert edit.groups == ((3,), (4, 9), (5,), (6,))
    assert edit.layout.partners == (0, 2, 1, 3)
    assert edit.layout.skeleton == ((0, 1), (2, 0))
    assert edit.unmentioned == (2, 7, 8)
    xy = np.random.default_rng(0).normal(size=(5, 10, 2)).astype(np.float32)
    ones = np.ones((5, 10), np.float32)
    points = edit.point_set().apply(Predicted(xy, ones, ones), 64)
    np.testing.assert_allclose(points.xy[:, 1], xy[:, [4, 9]].mean(1), atol=1e-6)
    np.testing.assert_allclose(points.xy[:, [0, 2, 3]], xy[:, [3, 5, 6]], atol=1e-6)


def test_partners_are_those_of_the_mirror_model_unless_the_file_says_otherwise():
    points = "points: [{landmark: 0, name: a}, {landmark: 5, name: b}, {landmarks: [1, 8], name: c}"
    points += ", {landmarks: [9, 4], name: d}"
    assert read(f"{points}]").layout.partners == (1, 0, 3, 2)
    assert read(f"{points}, {{landmark: 6, name: e, partner: a}}]").layout.partners == (4, 1, 3, 2, 0)
    none = points.replace("name: a", "name: a, partner: null")
    assert read(f"{none}]").layout.partners == (0, 1, 3, 2)
    assert read("points: [{landmarks: [1, 2], name: c}, {landmark: 4, name: d}]").layout.partners == (0, 1)


def test_numbers_in_edges_and_partners_mean_landmarks_and_outlive_names_merges_and_drops():
    text = "points: [{landmark: 4, name: a, partner: 1}, {landmark: 1}, {landmarks: [2, 3], name: c}"
    edit = read(f"{text}, {{landmark: 0, partner: 5}}]\nedges: [[4, 1], [2, 3], [2, 4], [3, 4], [6, 4], [6, 7]]")
    assert edit.layout.partners == (1, 0, 2, 3)
    assert edit.layout.skeleton == ((0, 1), (2, 0))
    assert edit.notes == (
        "landmark_0 has no partner: landmark 5 is dropped",
        "no edge 6 - 4: landmark 6 is dropped",
        "no edge 6 - 7: landmarks 6 and 7 are dropped",
    )


@pytest.mark.parametrize("name", ["no", "1e3", "2024-01-01", "null_", "'~'", "nez à gauche", "鼻", "0x1f", "a/b"])
def test_names_are_text_whatever_yaml_takes_them_for(name):
    assert read(f"points: [{{landmark: 1, name: {name}}}]").layout.names == (name.strip("'"),)


def test_composed_and_decomposed_letters_are_one_name():
    with pytest.raises(ConfigError, match="is the name of the point"):
        read("points: [{landmark: 1, name: e\u0301t\u00e9}, {landmark: 2, name: \u00e9te\u0301}]")


ONE = "points:\n  - {landmark: 1, name: nose}\n"


@pytest.mark.parametrize(("text", "where", "what"), [
    ("", "points.yaml: ", "is empty"),
    ("# nothing\n", "points.yaml: ", "is empty"),
    ("- a", "line 1: the file: ", "a list is no mapping"),
    ("dropped: [1]", "line 1: points: ", "is missing or empty"),
    ("points: []", "line 1: points: ", "every landmark would be dropped"),
    ("points: [3]", "line 1: points: ", "'3' is no mapping"),
    ("points: {a: 1}", "line 1: points: ", "a mapping is no list"),
    (ONE + "  - {landmark: 10, name: a}", "line 3: landmark: ", "the run has those from 0 to 9"),
    (ONE + "  - {landmark: -1, name: a}", "line 3: landmark: ", "give a number from 0 to 9"),
    (ONE + "  - {landmark: 1.5, name: a}", "line 3: landmark: ", "give a number from 0 to 9"),
    (ONE + f"  - {{landmark: {'9' * 5000}, name: a}}", "line 3: landmark: ", "is no landmark"),
    (ONE + "  - {landmark: [1, 2], name: a}", "line 3: landmark: ", "write landmarks: [4, 9]"),
    (ONE + "  - {landmarks: [], name: a}", "line 3: landmarks: ", "is empty"),
    (ONE + "  - {landmarks: 2, name: a}", "line 3: landmarks: ", "is no list"),
    (ONE + "  - {landmark: 2, landmarks: [3], name: a}", "line 3: points: ", "give one"),
    (ONE + "  - {name: a}", "line 3: points: ", "give one"),
    (ONE + "  - {landmark: 1, name: a}", "line 3: landmark: ", "used in line 2 already"),
    (ONE + "  - {landmarks: [2, 2], name: a}", "line 3: landmark: ", "used in line 3 already"),
    (ONE + "  - {landmark: 2, name: nose}", "line 3: name: ", "in line 2 too"),
    (ONE + "  - {landmark: 2, name: }", "line 3: name: ", "is empty"),
    (ONE + "  - {landmark: 2, name: '  '}", "line 3: name: ", "is empty"),
    (ONE + "  - {landmark: 2, name: 7}", "line 3: name: ", "is a number"),
    (ONE + "  - {landmark: 2, name: [a]}", "line 3: name: ", "a list is no name"),
    (ONE + '  - {landmark: 2, name: "a\\nb"}', "line 3: name: ", "do not print"),
    (ONE + f"  - {{landmark: 2, name: {'a' * 65}}}", "line 3: name: ", "longer than 64"),
    (ONE + "  - {landmarks: [2, 3]}", "line 3: points: ", "add name"),
    (ONE + "  - {landmark: 2, name: a, name: b}", "line 3: name: ", "already; keep one"),
    (ONE + "  - {landmark: 2, nmae: a}", "line 3: nmae: ", "did you mean name?"),
    (ONE + "edge: []", "line 3: edge: ", "did you mean edges?"),
    (ONE + "colour: []", "line 3: colour: ", "known keys: points, dropped, edges"),
    (ONE + "  - {landmark: 2, name: a, partner: nos}", "line 3: partner: ", "did you mean nose?; else remove partner"),
    (ONE + "  - {landmark: 2, name: a, partner: 12}", "line 3: partner: ", "the run has those from 0 to 9"),
    (ONE + "  - {landmark: 2, name: a, partner: b}\n  - {landmark: 3, name: b, partner: nose}", "line 3: partner: ",
     "whose own is nose; partners are mutual"),
    (ONE + "  - {landmark: 2, name: a, partner: nose}\n  - {landmark: 3, name: b, partner: nose}", "line 4: partner: ",
     "whose own is a"),
    (ONE + "edges: [[nose, tail]]", "line 3: edges: ", "'tail' is no point; the points are nose; else remove the edge"),
    (ONE + "edges: [[nose, nose]]", "line 3: edges: ", "with itself"),
    (ONE + "edges: [[1, 1]]", "line 3: edges: ", "with itself"),
    (ONE + "edges: [[nose]]", "line 3: edges: ", "joins two points, and here are 1"),
    (ONE + "edges: [nose]", "line 3: edges: ", "'nose' is no list"),
    (ONE + "  - {landmark: 2, name: a}\nedges:\n  - [nose, a]\n  - [a, nose]", "line 6: edges: ", "in line 5 already"),
    (ONE + "dropped: [1]", "line 3: dropped: ", "is a point too"),
    (ONE + "dropped: [11]", "line 3: dropped: ", "the run has those"),
    (ONE + "dropped: 3", "line 3: dropped: ", "is no list"),
    ("points: [", "line 1: ", "is not readable as YAML"),
    ("points:\n  - {landmark: 1, name: a: b}", "line 2: ", "needs quotes"),
    (ONE + "---\n" + ONE, "line 3: ", "another document"),
    ("[" * 20_000, "points.yaml: ", "is not readable as YAML"),
    ("#" * 2**20 + ONE, "points.yaml: ", "bytes"),
])  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place_and_the_way_out(text, where, what):
    with pytest.raises(ConfigError) as refused:
        read(text)
    message = str(refused.value)
    assert message.startswith("points.yaml")
    assert where in message
    assert what in message
    assert "\n" not in message


def test_a_file_that_is_not_text_is_refused():
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_edit(b"\xff\xfe\x00p", "points.yaml", FLIP)
    assert read_edit(b"\xef\xbb\xbf" + WHOLE.encode(), "points.yaml", FLIP) == read(WHOLE)
