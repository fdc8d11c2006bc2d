"""The side-view category: reproducible, both facings, landmarks on their parts, near and far legs told apart by depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.imaging.synthetic.animal import FAR, LANDMARK_NAMES, LEGS, PARTS, Body, articulate
from ray_kplm.imaging.synthetic.animal_paint import draw_pelt, paint_animal, surface_of, visible_points
from ray_kplm.imaging.synthetic.category import SyntheticImage, render, write_category
from ray_kplm.imaging.synthetic.posture import SideView, draw_build, draw_posture, draw_side_view

NUMBER = {name: i for i, name in enumerate(LANDMARK_NAMES)}


@pytest.fixture(scope="module")
def samples() -> list[SyntheticImage]:
    return [render(11, i, kind="profile") for i in range(200)]


@pytest.fixture(scope="module")
def landmarks(samples) -> np.ndarray:
    return np.stack([sample.landmarks for sample in samples])


def facings(landmarks: np.ndarray) -> np.ndarray:
    """1 where the withers are to the right of the hip, else -1."""
    return np.sign(landmarks[:, NUMBER["withers"], 0] - landmarks[:, NUMBER["hip"], 0])


def drawn(seed: int, size: int = 192) -> tuple[Body, SideView]:
    rng = np.random.default_rng([7, seed])
    posture = draw_posture(rng)
    body = articulate(draw_build(rng), posture)
    return body, draw_side_view(rng, body, posture.pitch, size)


def mirrored(view: SideView, size: int) -> SideView:
    """The view whose image is the mirror image."""
    centre = np.array([size - 1 - view.centre[0], view.centre[1]])
    return SideView(-view.facing, view.turn, np.diag([-1.0, 1.0]) @ view.plane, centre)


def test_an_image_depends_on_its_seed_and_index_alone(samples) -> None:
    again = render(11, 17, kind="profile")
    assert again.image.tobytes() == samples[17].image.tobytes()
    assert again.landmarks.tobytes() == samples[17].landmarks.tobytes()
    assert (again.visible == samples[17].visible).all()
    assert (render(12, 17, kind="profile").image != samples[17].image).any()


def test_larger_image_is_the_same_scene() -> None:
    small, large = (render(4, 9, size=size, kind="profile") for size in (64, 128))
    np.testing.assert_allclose(large.landmarks / 127, small.landmarks / 63, atol=1e-5)
    shrunk = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.corrcoef(shrunk.ravel(), small.image.ravel())[0, 1] > 0.9


def test_the_animal_is_inside_and_fills_its_share(samples, landmarks) -> None:
    boxes = np.stack([sample.box for sample in samples])
    np.testing.assert_array_equal(boxes[:, :2], landmarks.min(1))
    np.testing.assert_array_equal(boxes[:, 2:], landmarks.max(1))
    assert boxes.min() > 0
    assert boxes.max() < 95
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1) / 95
    assert longest.min() > 0.5
    assert longest.max() < 0.88


def test_half_of_the_animals_face_left(landmarks) -> None:
    assert 0.4 < (facings(landmarks) < 0).mean() < 0.6


def test_the_head_is_ahead_of_the_tail_in_both_facings(landmarks) -> None:
    facing = facings(landmarks)
    for front, back in (("muzzle", "tail_base"), ("eye", "hip"), ("chest", "stifle"), ("elbow", "near_hock")):
        ahead = facing * (landmarks[:, NUMBER[front], 0] - landmarks[:, NUMBER[back], 0])
        assert (ahead > 0).mean() > 0.98, (front, back)


def test_the_head_is_at_times_higher_and_at_times_lower_than_the_back(landmarks) -> None:
    higher = landmarks[:, NUMBER["eye"], 1] < landmarks[:, NUMBER["withers"], 1]
    assert 0.1 < higher.mean() < 0.9


def test_legs_cross(landmarks) -> None:
    facing = facings(landmarks)
    for leg in ("fore", "hind"):
        near_ahead = (
            facing * (landmarks[:, NUMBER[f"near_{leg}_foot"], 0] - landmarks[:, NUMBER[f"far_{leg}_foot"], 0]) > 0
        )
        assert 0.25 < near_ahead.mean() < 0.75


def test_about_a_fifth_leap_with_all_feet_above_the_ground() -> None:
    leaps = [draw_posture(np.random.default_rng(i)).airborne > 0 for i in range(400)]
    assert 0.15 < np.mean(leaps) < 0.3


def test_far_legs_are_hidden_at_times_and_near_legs_hardly_ever(samples) -> None:
    visible = np.stack([sample.visible for sample in samples]).mean(0)
    for name in ("far_fore_knee", "far_hock", "far_fore_foot", "far_hind_foot"):
        assert 0.4 < visible[NUMBER[name]] < 0.98
    for name in ("near_fore_knee", "near_hock", "near_fore_foot", "near_hind_foot", "eye", "withers"):
        assert visible[NUMBER[name]] > 0.9


def test_a_far_foot_behind_a_near_foot_is_hidden() -> None:
    rng = np.random.default_rng(0)
    build, posture = draw_build(rng), replace(draw_posture(rng), pitch=0.0)
    far, near = LEGS.index(("fore", FAR)), LEGS.index(("fore", -FAR))
    view = SideView(1.0, np.eye(3), 60.0 * np.eye(2), np.array([95.5, 80.0]))
    for far_swing, hidden in ((0.1, True), (0.7, False)):
        legs = [(0.1, 0.0)] * len(LEGS)
        legs[far], legs[near] = (far_swing, 0.0), (0.1, 0.0)
        body = articulate(build, replace(posture, legs=tuple(legs)))
        visible = visible_points(body, surface_of(body, view, 192), view)
        assert visible[NUMBER["far_fore_foot"]] != hidden
        assert visible[NUMBER["near_fore_foot"]]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("muzzle", {"muzzle"}),
        ("eye", {"pupil", "eyeball"}),
        ("ear", {"ear"}),
        ("near_fore_foot", {"hoof"}),
        ("near_hind_foot", {"hoof"}),
        ("near_hock", {"leg"}),
        ("elbow", {"coat", "leg"}),
    ],
)
def test_a_visible_landmark_lies_on_its_part(name: str, parts: set[str]) -> None:
    hits = []
    for seed in range(40):
        body, view = drawn(seed)
        surface = surface_of(body, view, 192)
        if visible_points(body, surface, view)[NUMBER[name]]:
            x, y = view.project(body.landmarks)[NUMBER[name]].round().astype(int)
            hits.append(PARTS[surface.part[y, x]] in parts and np.isfinite(surface.depth[y, x]))
    assert len(hits) > 30
    assert np.mean(hits) > 0.85


def test_the_other_facing_is_the_mirror_image_with_the_same_landmarks() -> None:
    body, view = drawn(3)
    other = mirrored(view, 192)
    np.testing.assert_allclose(
        other.project(body.landmarks), view.project(body.landmarks) * (-1, 1) + (191, 0), atol=1e-9
    )
    pelt = draw_pelt(np.random.default_rng(3))
    canvases = []
    for seen, light in ((view, pelt.light), (other, pelt.light * (-1, 1, 1))):
        canvas = np.full((192, 192, 3), 128, np.uint8)
        surface = surface_of(body, seen, 192)
        paint_animal(canvas, surface, replace(pelt, light=light), seen)
        canvases.append((canvas, visible_points(body, surface, seen)))
    (first, first_visible), (second, second_visible) = canvases
    assert (first_visible == second_visible).all()
    assert np.mean(np.abs(first.astype(int) - second[:, ::-1]) > 20) < 0.01
    assert np.mean(np.abs(first.astype(int) - second) > 20) > 0.1


def test_an_unknown_kind_is_an_error_that_lists_the_kinds(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"kind 'sheep': .*choose from creature, profile"):
        write_category(tmp_path / "never", 10, kind="sheep")
    assert not (tmp_path / "never").exists()
