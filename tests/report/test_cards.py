"""Which images a gallery has, in which order, and what a card says."""

from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.report.cards import Findings, choose, gallery, landmark_cards, make_album, opening


def findings_of(confidence, errors=None, side=100):
    confidence = np.asarray(confidence, float)
    images, landmarks = confidence.shape
    xy = np.full((images, landmarks, 2), side / 2.0)
    return Findings([f"{i}" for i in range(images)], np.full((images, 2), side), xy, confidence, errors)


def album_of(findings, side=100):
    count = len(findings.ids)
    return make_album(findings, np.arange(count), (np.full((side, side, 3), 8 * i, np.uint8) for i in range(count)))


def test_confidence_is_relative_to_the_median_of_the_landmark():
    findings = findings_of([[0.1, 0.8], [0.2, 0.8], [0.3, 0.4]])
    np.testing.assert_allclose(findings.relative_confidence(), [[0.5, 1], [1, 1], [1.5, 0.5]])
    findings.xy[1, 0] = np.nan
    assert findings.relative_confidence()[1, 0] == 0


def test_images_are_ordered_by_error_and_those_without_come_last():
    errors = np.array([3.0, np.nan, 1.0])
    assert np.argsort(findings_of(np.ones((3, 2)), errors).difficulty()).tolist() == [2, 0, 1]


def test_without_errors_images_of_low_confidence_come_last():
    findings = findings_of([[1.0, 1.0], [1.0, 0.1], [0.5, 0.8], [1.0, 1.0], [1.0, 1.0]])
    assert np.argsort(findings.difficulty(), kind="stable").tolist() == [0, 3, 4, 2, 1]


@pytest.mark.parametrize(("count", "ends"), [(1, 0), (5, 2), (50, 12)])
def test_a_choice_keeps_both_ends_and_is_seeded(count, ends):
    difficulty = np.random.default_rng(0).permutation(200).astype(float)
    chosen = choose(difficulty, count, seed=3)
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()
    taken = set(difficulty[chosen].tolist())
    assert taken >= {*range(ends), *range(200 - ends, 200)}
    np.testing.assert_array_equal(chosen, choose(difficulty, count, seed=3))
    if count == 50:
        assert (chosen != choose(difficulty, count, seed=4)).any()


def test_few_images_are_all_chosen():
    assert choose(np.array([2.0, 1.0, 3.0]), 10, seed=0).tolist() == [0, 1, 2]


def test_a_gallery_opens_with_the_best_and_the_worst():
    findings = findings_of(np.ones((30, 1)), np.arange(30.0))
    groups = opening(gallery(findings, album_of(findings)))
    assert [title for title, _ in groups] == ["Best", "Worst", "All others, worst first"]
    assert [image["index"] for image in groups[0][1]] == list(range(12))
    assert [image["index"] for image in groups[1][1]] == list(range(29, 17, -1))
    assert [image["index"] for image in groups[2][1]] == list(range(17, 11, -1))


def test_one_image_is_the_best_and_not_the_worst():
    findings = findings_of([[1.0]])
    assert [(title, len(images)) for title, images in opening(gallery(findings, album_of(findings)))] == [
        ("All others, worst first", 1)
    ]


def test_points_of_low_confidence_are_hollow():
    findings = findings_of([[1.0, 0.2], [1.0, 1.0], [1.0, 1.0]])
    shown = {image["index"]: image for image in gallery(findings, album_of(findings))}
    assert shown[0]["points"] == [(0, "50.5", "50.5", False), (1, "50.5", "50.5", True)]
    assert shown[0]["relative_confidence"] == [100, 20]
    assert shown[0]["mean_confidence"] == 60


def test_patches_go_from_the_most_to_the_least_confident_image():
    findings = findings_of(np.linspace(0.1, 1, 20)[:, None])
    [montage] = album_of(findings).montages
    assert (montage.width, montage.height) == (6 * 58 - 2, 2 * 58 - 2)  # 12 of 20 images, 56 px each
    [few] = album_of(findings_of(np.ones((2, 1)))).montages
    assert few.height == 56


def test_a_card_has_the_figures_that_are_known_and_a_dash_for_others():
    findings = findings_of(np.ones((3, 3)))
    quality = {
        "detection_rate_per_landmark": [1.0, 0.1, 0.5], "flip_per_landmark": [None, 2.0, 3.0], "compactness_per_landmark": None,
        "static_landmarks": [0],
    }  # fmt: skip
    metrics = {"backward_per_landmark": [2.0, 2.0, 5.0]}
    cards = landmark_cards(findings, album_of(findings), [1, 0, -1], quality, metrics)
    assert [(name, value) for name, value, _ in cards[0]["figures"]] == [
        ("Detected", "100 %"), ("Backward NME", "2.00 %"), ("Mirror error", "\N{EN DASH}"),
    ]  # fmt: skip
    assert [card["point"].partner for card in cards] == [1, 0, None]
    assert [card["notes"] for card in cards] == [
        ["does not move with the object"], ["detected in only 10 % of the images"], ["does not keep its place on the object"],
    ]  # fmt: skip


def test_without_any_measure_a_card_has_its_pictures():
    findings = findings_of(np.ones((2, 1)))
    [card] = landmark_cards(findings, album_of(findings), [-1], None, None)
    assert card["figures"] == []
    assert card["montage"] is not None


def test_landmarks_that_are_not_found_are_hollow_and_counted_on_their_card(evidence):
    page = evidence(images=8, landmarks=3)
    probability = np.full((8, 3), 0.9)
    probability[:2, 0], probability[:, 2] = 0.4, np.nan
    findings = replace(page.findings, probability=probability)
    assert findings.hollow()[:, 0].tolist() == [True, True, *[False] * 6]
    figures = [
        dict(f[:2] for f in c["figures"]) for c in landmark_cards(findings, page.album, page.flip_map, None, None)
    ]
    assert [f["Found"] for f in figures[:2]] == ["75.0 %", "100 %"]
    assert page.findings.found_rate() is None
