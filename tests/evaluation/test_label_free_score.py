"""The score that measures are combined to."""

import math

import pytest

from ray_kplm.evaluation.label_free_score import DISTANCE, SCALE, TERMS, Term, score_of, shortfalls


def test_a_shortfall_is_0_for_the_best_value_and_1_for_the_worst():
    falling = Term(best=0.7, worst=0.5, weight=1)
    assert [falling.shortfall(value) for value in (0.9, 0.7, 0.6, 0.5, 0.1)] == pytest.approx([0, 0, 0.5, 1, 1])
    rising = Term(best=0, worst=20, weight=1)
    assert [rising.shortfall(value) for value in (-1, 0, 5, 20, 40)] == pytest.approx([0, 0, 0.25, 1, 1])


def test_the_score_is_a_power_of_the_expected_distance_times_the_factors():
    terms = {"a": Term(1, 0, math.log(4)), "b": Term(0, 10, math.log(2))}
    measures = {"expected_distance": 3.0, "a": 0.5, "b": 10.0}
    plain = SCALE * 3**DISTANCE
    assert score_of(measures, terms) == pytest.approx(plain * 2 * 2)
    assert score_of(measures | {"a": None}, terms) == pytest.approx(plain * 2)
    assert score_of({"expected_distance": 3.0}, terms) == pytest.approx(plain)
    assert score_of({"expected_distance": 4.0}, terms) > plain


def test_no_measure_lowers_the_score():
    assert all(term.weight >= 0 for term in TERMS.values())
    best = {name: term.best for name, term in TERMS.items()}
    assert shortfalls(best) == dict.fromkeys(TERMS, 0.0)
