"""Stored pictures that are the same."""

import numpy as np

from ray_kplm.datasets.duplicates import Repeat, digests_of, find_repeats


def test_each_repeat_names_the_first_of_its_kind():
    parts = [[b"a", b"b", b"a"], [], [b"c", b"b"], [b"a"]]
    assert list(find_repeats([digests_of(part) for part in parts])) == [
        Repeat(0, 2, 0, 0),
        Repeat(2, 1, 0, 1),
        Repeat(3, 0, 0, 0),
    ]


def test_without_repeats_or_pictures_there_are_none():
    assert not list(find_repeats([digests_of([b"a", b"b"]), digests_of([b"c"])]))
    assert not list(find_repeats([]))
    assert not list(find_repeats([b"", b""]))


def test_many_pictures_agree_with_a_plain_search():
    generator = np.random.default_rng(0)
    parts = [[bytes([value]) for value in generator.integers(0, 200, size)] for size in (50, 1, 0, 120, 30)]
    first, expected = {}, []
    for number, part in enumerate(parts):
        for row, picture in enumerate(part):
            if first.setdefault(picture, (number, row)) != (number, row):
                expected.append(Repeat(number, row, *first[picture]))
    assert list(find_repeats([digests_of(part) for part in parts])) == expected
    assert len(expected) > 50
