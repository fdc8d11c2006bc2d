"""The rules: a good dataset breaks none, and each rule has its own fault, bound and way out."""

from dataclasses import replace

import pytest

from ray_kplm.screening.verdict import Level, Measures, findings, verdict

GOOD = Measures(
    train=1000, distinct=990, repeated=0.01, largest_repeat=3, leaked=0.0, side=128, detail=96, blurred=0.0, flat=0.0,
    clipped=0.0, boxes=1.0, object_side=0.7, place=0.05, window_contrast=1.5, window_side=0.7, objects=1,
    background=0.05, variety=300.0, mirror="partners", doubtful=0.0,
)  # fmt: skip


def broken(measures):
    return {one.name: one.level for one in findings(measures) if one.level != Level.SUITABLE}


def test_a_good_dataset_breaks_no_rule():
    assert broken(GOOD) == {}
    assert verdict(findings(GOOD)) == Level.SUITABLE
    assert all(one.way_out == "" for one in findings(GOOD))


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"distinct": 299}, "images", Level.RISKY),
        ({"distinct": 1}, "images", Level.UNSUITABLE),
        ({"repeated": 0.5}, "repeats", Level.RISKY),
        ({"leaked": 1.0}, "leak", Level.RISKY),
        ({"side": 60, "detail": 60}, "size", Level.RISKY),
        ({"side": 32, "detail": 32}, "size", Level.UNSUITABLE),
        ({"detail": 32}, "detail", Level.RISKY),
        ({"detail": 16}, "detail", Level.UNSUITABLE),
        ({"blurred": 0.3}, "blur", Level.RISKY),
        ({"flat": 0.3}, "exposure", Level.RISKY),
        ({"place": 0.008}, "place", Level.RISKY),
        ({"place": 0.0, "boxes": 0.0}, "place", Level.UNSUITABLE),
        ({"place": 0.0}, "place", Level.RISKY),
        ({"object_side": 0.2}, "object_size", Level.RISKY),
        ({"objects": 2, "window_side": 0.25, "boxes": 0.0}, "several_objects", Level.UNSUITABLE),
        ({"objects": 2, "window_side": 0.25}, "several_objects", Level.RISKY),
        ({"background": 0.6}, "background", Level.RISKY),
        ({"variety": 5.0}, "variety", Level.RISKY),
        ({"mirror": "facing", "doubtful": 0.5}, "mirror", Level.RISKY),
    ],
)
def test_each_fault_breaks_its_rule_alone(change, name, level):
    measures = replace(GOOD, **change)
    assert broken(measures) == {name: level}
    first = findings(measures)[0]
    assert first.name == name
    assert first.way_out
    assert verdict(findings(measures)) == level


def test_repeated_windows_of_a_large_object_are_not_several_objects():
    assert broken(replace(GOOD, objects=2, window_side=0.5)) == {}
    assert broken(replace(GOOD, objects=2, window_side=0.25, window_contrast=0.5)) == {}


def test_without_test_images_there_is_no_leak():
    assert "leak" not in {one.name for one in findings(replace(GOOD, leaked=float("nan")))}
