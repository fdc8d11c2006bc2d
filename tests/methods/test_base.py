"""What the generations decide of a training: here the course of the learning rate."""

from itertools import chain

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.methods import build_method

ITERATIONS = ["stage1.warmup_iterations=40", "stage1.rounds=3", "stage1.round_iterations=20", "stage2.iterations=90"]


def method(kind: str, *overrides: str):
    return build_method(load_config(None, [f"method.kind={kind}", *ITERATIONS, *overrides]))


def of_rounds(subject) -> list[list[float]]:
    """Factors of the warm-up's and of every round's iterations."""
    return [[subject.round_schedule(n)(i) for i in range(40 if n == 0 else 20)] for n in range(4)]


def of_stretches(subject) -> list[list[float]]:
    """Factors of every stretch of stage 2."""
    return [
        [subject.landmark_schedule(n)(i) for i in range(subject.landmark_iterations(n))]
        for n in range(subject.pauses + 1)
    ]


def test_every_detector_that_begins_anew_has_the_whole_schedule():
    subject = method("template", "stage2.decay_at=[0.5, 0.8]", "stage1.decay_at=[0.75]")
    assert of_stretches(subject) == 3 * [[1.0] * 15 + [0.1] * 9 + [0.1**2] * 6]
    warmup, *rounds = of_rounds(subject)
    assert warmup == [1.0] * 30 + [0.1] * 10
    assert rounds == 3 * [[1.0] * 15 + [0.1] * 5]


def test_the_last_detector_has_the_whole_schedule_where_iterations_do_not_divide():
    subject = method("template", "stage2.iterations=20", "stage2.decay_at=[0.5]")
    assert of_stretches(subject) == [[1.0] * 3 + [0.1] * 3, [1.0] * 3 + [0.1] * 3, [1.0] * 4 + [0.1] * 4]


@pytest.mark.parametrize("kind", ["kplm", "merge"])
def test_a_network_that_goes_on_has_one_schedule_for_the_stage(kind):
    subject = method(kind, "stage2.decay_at=[0.5, 0.8]", "stage1.decay_at=[0.75]", "merging.every=30")
    assert len(of_stretches(subject)) == (3 if kind == "merge" else 1)
    assert list(chain(*of_stretches(subject))) == [1.0] * 45 + [0.1] * 27 + [0.1**2] * 18
    assert list(chain(*of_rounds(subject))) == [1.0] * 75 + [0.1] * 25


@pytest.mark.parametrize("kind", ["kplm", "merge", "template"])
def test_a_cosine_falls_in_every_round_anew(kind):
    subject = method(kind, "stage1.decay=cosine", "stage1.decay_at=[0.1]")
    for factors in of_rounds(subject):
        assert factors[0] == 1.0
        assert (np.diff(factors) < 0).all()
        assert factors[len(factors) // 2] == pytest.approx(0.505)
        assert 0.01 < factors[-1] < 0.03


def test_the_linear_rule_divides_what_a_schedule_is_counted_over():
    subject = method("template", "stage2.decay_at=[0.5]", "compute.workers=2", "compute.scale_lr=true")
    assert of_stretches(subject) == 3 * [[2.0] * 8 + [2 * 0.1] * 7]
    assert (subject.round_first(0), subject.round_first(1), subject.round_first(4)) == (0, 20, 50)


@pytest.mark.parametrize("kind", ["kplm", "merge", "template"])
def test_a_batch_of_a_round_has_as_many_views_as_said(kind):
    subject = method(kind)
    assert subject.round_plan(1, np.arange(50)).views == subject.round_views * subject.round_batch
