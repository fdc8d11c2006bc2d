"""What a model card says, that it is Markdown with valid metadata, and that text of a data set is only text there."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ray_kplm.imaging.draw import palette
from ray_kplm.report.model_card import LAYOUT_SIDE, Card, build_card, layout_picture

ROOT = Path(__file__).parents[2]
CARD = Card(
    title="10 landmarks of cats",
    name="me/cats",
    landmarks=10,
    method="kplm",
    images=1234,
    dataset="cats",
    data_licence="CC BY 4.0",
    licence="cc-by-4.0",
    label_free=[("Equivariance", "2.1 %", "of the side")],
    labelled=[("Forward NME", "6.2 %", "of the mean shape: 21 %")],
    test_images=200,
    warnings=["Landmark 3 does not move with the object"],
    layout="layout.png",
    layout_images=200,
    facts={"Seed": "0"},
)


def parts(card: Card) -> tuple[dict, str]:
    text = build_card(card)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def section(body: str, title: str) -> str:
    return re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", body, re.DOTALL)[1]


def test_the_metadata_is_what_the_hub_reads():
    front, _ = parts(CARD)
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "ray-kplm"
    assert front["pipeline_tag"] == "keypoint-detection"
    assert {"ray-kplm", "unsupervised", "method-kplm"} <= set(front["tags"])
    front, _ = parts(replace(CARD, licence="", synthetic=True))
    assert (front["license"], front["license_name"]) == ("other", "not-stated")
    assert "synthetic" in front["tags"]


def test_it_says_what_was_found_how_good_it_is_and_what_to_mind():
    _, body = parts(CARD)
    assert body.startswith("\n# 10 landmarks of cats\n")
    assert "1,234 unlabelled images" in body
    assert "](layout.png)" in body
    assert "examples.png" not in body
    assert 'LandmarkDetector.from_pretrained("me/cats")' in section(body, "How to use it")
    good = section(body, "How good it is")
    assert "| Equivariance | 2.1 % | of the side |" in good
    assert "annotation of 200 test images" in good
    assert "| Forward NME | 6.2 % |" in good
    assert "* Landmark 3 does not move with the object.\n" in section(body, "What to mind")
    assert "| licence of the images | CC BY 4.0 |" in section(body, "Data and licence")
    assert "| Seed | 0 |" in section(body, "How it was made")


def test_what_was_not_measured_is_said():
    bare = Card("4 landmarks", "user/name", 4, "merge", has_visibility=False)
    _, body = parts(bare)
    good = section(body, "How good it is")
    assert "Not measured without annotation" in good
    assert "Not scored against annotation" in good
    assert "gave no warning" not in body
    assert "probability` is NaN" in section(body, "What to mind")
    data = section(body, "Data and licence")
    assert "| data set | not stated |" in data
    assert "| licence of this model | not stated: whoever shares" in data
    assert "![" not in body
    assert "gave no warning" in parts(replace(CARD, warnings=()))[1]


def test_a_model_of_rendered_images_says_so():
    assert "finds nothing in photographs" in parts(replace(CARD, synthetic=True))[1]
    assert "finds nothing in photographs" not in parts(CARD)[1]


def test_points_have_a_table_with_errors_where_these_are_known():
    made = ["The points are those of 20 labelled images"]
    card = replace(CARD, points=[("left | eye", "right eye", ""), ("nose", "", "")], made=made, discovered=12)
    _, body = parts(card)
    assert r"| 0 | left \| eye | right eye |" in body
    assert "discovered 12 landmarks, which nobody placed" in body
    assert "The points are those of 20 labelled images." in body
    assert "of the 12 discovered landmarks:" in section(body, "How good it is")
    assert "cross-validated" not in body
    _, body = parts(replace(card, points=[("nose", "", "2.5 %")]))
    assert "| 0 | nose |  | 2.5 % |" in body


def test_text_of_a_data_set_is_one_line_without_markup_and_credentials():
    bad = "a\n---\n# x | <img src=x> [y](http://z) s3://KEY:SECRET@bucket/a"
    _, body = parts(replace(CARD, dataset=bad, warnings=[bad]))
    for row in (line for line in body.splitlines() if "img src" in line):
        assert row.startswith(("| data set | a --- # x ", "* a --- # x "))
        assert r"\<img src=x\> \[y\](http://z)" in row
        assert "SECRET" not in row
    assert len([line for line in body.splitlines() if "img src" in line]) == 2


def test_it_cites_what_the_citation_file_cites():
    """CITATION.cff is no part of the installed package."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    text = section(parts(CARD)[1], "How to cite")
    for reference in cited[:2]:
        assert f"{{{reference['title']}}}" in text
        assert str(reference["year"]) in text
        assert all(author["family-names"] in text for author in reference["authors"])
        assert reference.get("doi", reference["url"]) in text


def test_the_layout_has_each_landmark_in_its_colour():
    shape = np.array([[10.0, 10], [30, 10], [20, 40]])
    picture = np.asarray(Image.open(io.BytesIO(layout_picture(shape))))
    assert picture.shape == (LAYOUT_SIDE, LAYOUT_SIDE, 3)
    centres = []
    for colour in palette(3):
        ys, xs = np.nonzero((picture == colour).all(axis=2))
        centres.append([xs.mean(), ys.mean()])
    centres = np.array(centres)
    ratio = np.linalg.norm(centres[2] - centres[0]) / np.linalg.norm(centres[1] - centres[0])
    np.testing.assert_allclose(ratio, np.hypot(10, 30) / 20, rtol=0.02)
    np.testing.assert_allclose((centres.max(0) + centres.min(0)) / 2, LAYOUT_SIDE / 2, atol=2)


def test_the_layout_has_its_skeleton():
    shape = np.array([[10.0, 10], [30, 10], [20, 40]])
    plain, joined = (np.asarray(Image.open(io.BytesIO(layout_picture(shape, edges)))) for edges in ((), ((0, 1),)))
    ys, xs = np.nonzero((plain != joined).any(axis=2))
    assert xs.max() - xs.min() > 100  # along the edge, which is level
    assert ys.max() - ys.min() < 20
