"""The page has all that it was given, escaped, in one file that asks for nothing else."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from ray_kplm.points.layout import Layout
from ray_kplm.points.point_set import PointSet
from ray_kplm.report import cards
from ray_kplm.report.mirror_images import PICTURES, MirrorImages, Strip, choose_strips, pictures_of
from ray_kplm.report.pictures import thumbnail
from ray_kplm.report.run_page import build_page

VOID = {"meta", "link", "img", "input", "br", "circle", "path"}


class Parsed(HTMLParser):
    """Elements (tag, attributes, text directly in them) in order; fails on tags that do not match."""

    def __init__(self, page):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(page)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self._open[-1][0] == tag, f"</{tag}> closes {self._open[-1]}"
        self._open.pop()

    def handle_data(self, data):
        if self._open:
            self._open[-1][2] += data

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            (found, text)
            for name, found, text in self.elements
            if name == tag and all(found.get(key) == value for key, value in wanted.items())
        ]

    def texts(self, tag, **attributes):
        return [text.strip() for _, text in self.all(tag, **attributes)]


@pytest.fixture(scope="module")
def page(evidence):
    return build_page(evidence())


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page)


def test_the_header_summarises_the_run(parsed):
    assert parsed.texts("h1") == ["faces"]
    lead = parsed.texts("p", class_="lead")[0]
    assert lead == "4 landmarks discovered in 1,234 unlabelled images, shown on 8 test images."
    tiles = dict(zip(parsed.texts("dt"), parsed.texts("dd", class_="value"), strict=False))
    assert tiles["Forward NME"] == "6.50 %"
    assert tiles["Detection rate"] == "85.0 %"
    assert tiles["Static"] == "1 of 4"
    assert tiles["Coverage"] == "21.5 %"


def test_warnings_are_sentences(parsed):
    items = parsed.texts("li", class_=None)
    assert "Landmark 1 does not move with the object." in items
    assert any(text.startswith("Landmark 3 has a backward error") for text in items)
    assert "2 images could not be scored: they have no normaliser." in items
    assert "There are only 8 images: all measures are imprecise." in items


def test_every_landmark_has_a_card(parsed):
    cards = parsed.all("article", class_="card")
    assert [attributes["id"] for attributes, _ in cards] == [f"landmark-{k}" for k in range(4)]
    assert parsed.texts("span", class_="chip k3") == [
        "",
    ]  # only on its own card: it is no partner of another landmark
    assert len(parsed.all("img", class_="patches")) == len(parsed.all("img", class_="place")) == 4
    notes = [
        text
        for text in parsed.texts("li")
        if text in ("does not move with the object", "does not keep its place on the object")
    ]
    assert notes == ["does not move with the object", "does not keep its place on the object"]
    assert "detected in only 12 % of the images" in parsed.texts("li")


def test_the_gallery_is_ordered_and_shows_each_image_once(parsed):
    shots = parsed.all("li", class_="shot")
    assert [int(attributes["data-rank"]) for attributes, _ in shots] == [
        0,
        1,
        2,
        3,
        7,
        6,
        5,
        4,
    ]  # best half, then the worst
    assert [int(attributes["data-index"]) for attributes, _ in shots][:2] == [7, 6]  # errors fall with the index
    alts = [
        attributes["alt"]
        for attributes, _ in parsed.all("img", decoding="async")
        if attributes["alt"].startswith("image")
    ]
    assert sorted(alts) == [f"image {i}.png" for i in range(8)]
    assert len(parsed.all("circle")) == 8 * 4
    assert parsed.texts("span", class_="caption")[0] == "1.00 %"


def test_charts_have_words_for_those_who_do_not_see_them(parsed):
    spoken = [attributes["aria-label"] for attributes, _ in parsed.all("svg", role="img")]
    assert "Points per image. landmarks: 3.00 at first, 5.00 at last." in spoken
    assert any(text.startswith("Cumulative forward error") for text in spoken)
    assert parsed.texts("th", scope="row")[:3] == ["0", "1", "2"]


def test_all_images_have_alternatives_and_all_controls_names(parsed):
    assert all(attributes.get("alt") for attributes, _ in parsed.all("img"))
    levels = [int(tag[1]) for tag, _, _ in parsed.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes, _ in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes, _ in parsed.all("a") if attributes["href"].startswith("#")}
    assert targets <= set(ids)
    named = {attributes["aria-labelledby"] for _, attributes, _ in parsed.elements if "aria-labelledby" in attributes}
    assert named <= set(ids)


def test_nothing_is_fetched(page, parsed):
    for _, attributes, _ in parsed.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), value
    style = parsed.texts("style")[0]
    assert "@import" not in style
    assert all(piece.startswith("data:") for piece in style.split("url(")[1:])
    policy = parsed.all("meta", http_equiv=None)
    assert any("default-src 'none'" in (attributes.get("content") or "") for attributes, _ in policy)


def test_names_are_text_and_never_markup(evidence):
    bad = "</title></style><script>alert(1)</script>\"'&"
    page = build_page(evidence(ids=[f"{bad}{i}" for i in range(8)], dataset=bad, run=bad, config=bad, facts={bad: bad}))
    parsed = Parsed(page)
    assert len(parsed.all("script")) == 1
    assert parsed.texts("h1") == [bad]
    assert {attributes["alt"] for attributes, _ in parsed.all("img")} >= {f"{bad}{i}" for i in range(8)}


def test_without_annotation_the_page_is_label_free(evidence):
    parsed = Parsed(build_page(evidence(metrics=None, errors=None)))
    assert "all measures are label-free" in parsed.texts("p", class_="lead")[0]
    assert "Forward NME" not in parsed.texts("dt")
    assert not parsed.all("h2", id="errors")
    assert all(text.startswith("confidence ") for text in parsed.texts("span", class_="caption"))


def test_a_page_needs_only_findings(evidence):
    parsed = Parsed(build_page(evidence(quality=None, metrics=None, errors=None, rounds=[], embeddings=[])))
    ids = {attributes.get("id") for attributes, _ in parsed.all("h2")}
    assert {"gallery", "landmarks", "details"} <= ids
    assert not ids & {"rounds", "errors", "descriptors", "merging"}
    assert len(parsed.all("article")) == 4


def test_landmarks_that_were_not_detected_are_not_drawn(evidence):
    xy = np.full((8, 4, 2), 20.0)
    xy[:, 1] = np.nan
    xy[3, 2] = np.nan
    parsed = Parsed(build_page(evidence(xy=xy)))
    assert len(parsed.all("circle")) == 8 * 3 - 1
    assert len(parsed.all("img", class_="patches")) == 3
    assert "Never detected." in parsed.texts("p", class_="quiet")
    assert "nan" not in {v for a, _ in parsed.all("circle") for v in a.values()}


def test_merged_channels_are_listed(evidence):
    merges = [
        {"before": 7, "after": 5, "merged": [
            {"channel": 6, "into": 2, "overlap": 0.915}, {"channel": 5, "into": 0, "overlap": 0.8}]},
        {"before": 5, "after": 5, "merged": []},
    ]  # fmt: skip
    parsed = Parsed(build_page(evidence(merges=merges, kind="merge")))
    assert parsed.texts("span", class_="pair") == ["6 into 2", "5 into 0"]
    assert parsed.texts("td", class_="n")[:2] == ["7 → 5", "5 → 5"]
    assert "none" in parsed.texts("td")


def test_a_thousand_noisy_images_with_thirty_landmarks_stay_below_30_mb(evidence, noise):
    few = evidence(images=20, landmarks=30, side=200)
    findings, side = few.findings, cards.thumbnail_side(1000)
    thumbnails = [thumbnail(image, side) for image in noise(20, 200)]
    many = replace(
        findings,
        ids=[f"folder/with/a/long/name/image-{i:06d}.jpg" for i in range(1000)],
        **{name: np.tile(getattr(findings, name).T, 50).T for name in ("sizes", "xy", "confidence", "errors")},
    )
    album = replace(few.album, chosen=np.arange(1000), thumbnails=thumbnails * 50)
    page = build_page(replace(few, findings=many, album=album, total=1000))
    assert page.count('class="shot"') == 1000
    assert page.count("<circle") == 30_000
    assert len(page.encode()) < 30e6


def test_a_chosen_number_of_landmarks_has_a_section_with_its_evidence(evidence):
    rows = [
        {"landmarks": k, "agreement": 0.5, "chance": 0.3, "excess": 0.2 + k / 100, "standard_error": 0.01, "found": 0.9}
        for k in (6, 8)
    ]
    choice = {
        "landmarks": 8, "clusters": 60, "images": 400, "points_per_image": 24.0, "range": [6, 8], "doubts": ["few images"],
        "rows": rows,
    }  # fmt: skip
    page = build_page(evidence(choice=choice))
    Parsed(page)
    assert "K = 8, M = 60, unsure: 6 to 8 over other splits of 400 images of 24.0 keypoints" in page
    assert "Unsure: few images." in page
    for given in (None, {"landmarks": 8, "clusters": 60, "images": 400, "points_per_image": 24.0}):
        assert "Number of landmarks" not in build_page(evidence(choice=given))


def test_the_images_that_face_either_way_are_shown_with_the_evidence(evidence, noise):
    facing = np.float32([0.9, -0.95, 0.1, 0.8, -0.02, -0.7])
    images = dict(enumerate(noise(6, 40)))
    strips = pictures_of(choose_strips(facing, 0.5, seed=0), images)
    page = build_page(evidence(mirror=MirrorImages("mirror images face the other way: 2 % & <less>", strips)))
    assert "Mirror images face the other way: 2 % &amp; &lt;less&gt;." in page
    parsed = Parsed(page)
    assert parsed.texts("h2", id="mirror") == ["Mirror images"]
    assert parsed.texts("a", href="#mirror") == ["Mirror images"]
    titles = [text for text in parsed.texts("h3") if text.endswith("of the images")]
    assert titles == [
        "Facing one way: 33 % of the images",
        "Facing the other way: 33 % of the images",
        "Doubtful, the least sure first: 33 % of the images",
    ]
    captions = [text for text in parsed.texts("span", class_="caption") if text.endswith("sure")]
    assert sorted(captions[:2]) == ["80 % sure", "90 % sure"]
    assert captions[4:] == ["2 % sure", "10 % sure"]
    assert [a["src"] for a, _ in parsed.all("img", alt="Training image")][4] == pictures_of(
        [Strip("", np.array([4]), [""])], images
    )[0][1][0].uri  # fmt: skip


def test_objects_seen_from_the_front_have_the_evidence_without_pictures(evidence):
    parsed = Parsed(build_page(evidence(mirror=MirrorImages("mirror images have partners: 11 % are alike"))))
    assert len(parsed.all("h2", id="mirror")) == 1
    assert not parsed.all("ol", class_="strip")


def test_a_run_that_did_not_look_has_no_section_of_mirror_images(parsed):
    assert not parsed.all("h2", id="mirror")


def test_strips_are_short_and_seeded_and_may_be_empty():
    facing = np.linspace(0.6, 1, 50).astype(np.float32)
    one, other, doubtful = choose_strips(facing, 0.5, seed=3)
    assert len(one.rows) == len(set(one.rows.tolist())) == PICTURES
    np.testing.assert_array_equal(one.rows, choose_strips(facing, 0.5, seed=3)[0].rows)
    assert len(other.rows) == len(doubtful.rows) == 0
    assert other.title == "Facing the other way: 0 % of the images"


def test_an_edit_gives_names_edges_and_drops(evidence):
    layout = Layout("", ("no<se", "eye"), (1, 0), ((0, 1),))
    plain = evidence(layout="data:image/png;base64,")
    parsed = Parsed(build_page(replace(plain, edited=PointSet.of_groups(layout, [[3], [0, 2]], 4))))
    heads = ["eye", "Landmark 1", "eye", "no<se"]
    assert [text for text in parsed.texts("h3") if text in (*heads, "landmark 1")] == heads
    assert "2 points are made of them; 1 is the mean of several landmarks; dropped: 1." in parsed.texts("p")[
        1
    ] + "".join(parsed.texts("p", class_="quiet"))
    options = [text for text in parsed.texts("option") if text[:1].isdigit()]
    assert options == ["0 eye", "1 (dropped)", "2 eye", "3 no<se"]
    assert [a["id"] for a, _ in parsed.all("article", class_="card dropped")] == ["landmark-1"]
    assert len([a for a, _ in parsed.all("circle") if a["class"].endswith(" dropped")]) == 8
    assert json.loads(parsed.all("ol", id="images")[0][0]["data-names"]) == ["eye", "", "eye", "no<se"]
    paths = [a["d"] for a, _ in parsed.all("path", class_="edges")]
    xy = plain.findings.xy[7]  # the best image, which is first; its picture has the size of the image
    ends = [xy[3] + 0.5, xy[[0, 2]].mean(axis=0) + 0.5]
    found = [float(word) for word in re.findall(r"[\d.]+", paths[0])]
    np.testing.assert_allclose(found, np.concatenate(ends), atol=0.51)
    assert len(paths) == 8
    assert [text for text in parsed.texts("dd") if text in ("no<se", "eye")] == ["no<se", "no<se", "eye"]  # joined to
    assert "Merged with landmark 2: the point is their mean." in parsed.texts("p", class_="quiet")
    assert [text for text in parsed.texts("figcaption") if "layout" in text] == [
        "Mean layout over the images, with the edges"
    ]


def test_without_an_edit_landmarks_have_their_numbers(parsed):
    assert json.loads(parsed.all("ol", id="images")[0][0]["data-names"]) == [""] * 4
    assert not parsed.all("path", class_="edges")
    assert not parsed.all("article", class_="card dropped")
