"""Schedules and plans of the methods' trainings."""

from itertools import chain

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.methods import build_method

ITERATIONS = ["stage1.warmup_iterations=40", "stage1.rounds=3", "stage1.round_iterations=20", "stage2.iterations=90"]


def method(kind: str, *overrides: str):
    return build_method(load_config(None, [f"method.kind={kind}", *ITERATIONS, *overrides]))


def rates_of_rounds(subject) -> list[list[float]]:
    """Return the rate factors of the iterations of the warm-up and of each round."""
    return [[subject.round_schedule(n)(i) for i in range(40 if n == 0 else 20)] for n in range(4)]


def rates_of_phases(subject) -> list[list[float]]:
    """Return the rate factors of the iterations of each phase of stage 2."""
    return [
        [subject.landmark_schedule(n)(i) for i in range(subject.phase_iterations(n))] for n in range(subject.num_phases)
    ]


def test_each_fresh_detector_has_the_whole_schedule():
    subject = method("template", "stage2.decay_at=[0.5, 0.8]", "stage1.decay_at=[0.75]")
    assert rates_of_phases(subject) == 3 * [[1.0] * 15 + [0.1] * 9 + [0.1**2] * 6]
    warmup, *rounds = rates_of_rounds(subject)
    assert warmup == [1.0] * 30 + [0.1] * 10
    assert rounds == 3 * [[1.0] * 15 + [0.1] * 5]


def test_the_last_phase_has_the_whole_schedule_if_iterations_do_not_divide():
    subject = method("template", "stage2.iterations=20", "stage2.decay_at=[0.5]")
    assert rates_of_phases(subject) == [[1.0] * 3 + [0.1] * 3, [1.0] * 3 + [0.1] * 3, [1.0] * 4 + [0.1] * 4]


@pytest.mark.parametrize("kind", ["kplm", "merge"])
def test_a_continued_network_has_one_schedule_for_the_stage(kind):
    subject = method(kind, "stage2.decay_at=[0.5, 0.8]", "stage1.decay_at=[0.75]", "merging.every=30")
    assert len(rates_of_phases(subject)) == (3 if kind == "merge" else 1)
    assert list(chain(*rates_of_phases(subject))) == [1.0] * 45 + [0.1] * 27 + [0.1**2] * 18
    assert list(chain(*rates_of_rounds(subject))) == [1.0] * 75 + [0.1] * 25


@pytest.mark.parametrize("kind", ["kplm", "merge", "template"])
def test_each_round_has_its_own_cosine(kind):
    subject = method(kind, "stage1.decay=cosine", "stage1.decay_at=[0.1]")
    for factors in rates_of_rounds(subject):
        assert factors[0] == 1.0
        assert (np.diff(factors) < 0).all()
        assert factors[len(factors) // 2] == pytest.approx(0.505)
        assert 0.01 < factors[-1] < 0.03


def test_scaling_the_rate_divides_the_iterations_of_the_schedule():
    subject = method("template", "stage2.decay_at=[0.5]", "compute.workers=2", "compute.scale_lr=true")
    assert rates_of_phases(subject) == 3 * [[2.0] * 8 + [2 * 0.1] * 7]
    assert (subject.round_first(0), subject.round_first(1), subject.round_first(4)) == (0, 20, 50)


@pytest.mark.parametrize("kind", ["kplm", "merge", "template"])
def test_the_batch_of_a_round_has_its_units_times_their_views(kind):
    subject = method(kind)
    assert subject.round_plan(1, np.arange(50)).views == subject.views_per_unit * subject.round_batch


@pytest.mark.parametrize("round", [0, 1])
def test_rounds_and_stage_2_show_images_as_they_face_one_way(round):
    subject = method("kplm", "method.mirror=facing")
    facing = np.linspace(-1, 1, 50).astype(np.float32)
    usable = np.arange(5, 50)
    for plan in (subject.round_plan(round, usable, None, facing), subject.landmark_plan(usable, 0, facing)):
        np.testing.assert_array_equal(plan.flip, facing[plan.image] < 0)


@pytest.mark.parametrize(("mirror", "shown"), [("partners", True), ("none", False), ("facing", False)])
def test_mirror_images_are_shown_where_landmarks_have_partners(mirror, shown):
    subject = method("kplm", f"method.mirror={mirror}")
    assert subject.round_plan(1, np.arange(50)).flip.any() == shown
    assert subject.landmark_plan(np.arange(50), 0).flip.any() == shown
    assert not subject.round_plan(0, np.arange(50)).flip.any()  # the warm-up has identities that are of one image


def test_the_share_of_frozen_features_falls_to_nothing_in_the_last_round():
    subject = method("kplm", "features=dinov2", "features_share=0.6")
    assert [subject.frozen_share(round) for round in range(4)] == pytest.approx([0.6, 0.4, 0.2, 0])


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("kplm", ["features=hog"]),
        ("kplm", ["features=dinov2", "features_share=0"]),
        ("kplm", ["features=dinov2", "stage2.training=joint"]),
        ("merge", ["features=dinov2"]),
        ("template", ["features=dinov2"]),
    ],
)
def test_frozen_features_are_not_blended_with_hog_or_where_clusters_are_continued(kind, overrides):
    subject = method(kind, *overrides)
    assert [subject.frozen_share(round) for round in range(4)] == [0, 0, 0, 0]
