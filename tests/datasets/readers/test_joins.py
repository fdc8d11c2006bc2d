"""Joins by name: one name in several spellings, no guess from a similar one, and what is said of what does not match."""

import unicodedata

import pytest

from ray_kplm.datasets.readers.joins import ImageNames, join_note, spellings
from ray_kplm.errors import DataError

ACCENT = "Mü.jpg"
DECOMPOSED = unicodedata.normalize("NFD", ACCENT)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a/b.jpg", "a/b.jpg"),
        ("a//b.jpg", "a/b.jpg"),
        ("a/../a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        (".\\a\\b.jpg", "a/b.jpg"),
        ("/data/photos/a/b.jpg", "a/b.jpg"),
        (ACCENT, ACCENT),
        (DECOMPOSED, ACCENT),
        ("b.jpg", None),
        ("a/b", None),
        ("a/b.JPG", None),
        ("A/b.jpg", None),
        ("a/b.jpg ", None),
        ("x/a/b.jpg", None),
        ("", None),
        (None, None),
        ("0", None),
    ],
)
def test_a_name_is_found_in_all_its_spellings_and_never_by_likeness(name, found):
    assert ImageNames(["a/b.jpg", ACCENT], "/data/photos").find(name) == found


def test_images_whose_names_differ_by_the_form_only_are_found_by_their_exact_names():
    names = ImageNames([ACCENT, DECOMPOSED, "x\\y.jpg", "x/y.jpg"])
    assert [names.find(name) for name in (ACCENT, DECOMPOSED, "x\\y.jpg")] == [ACCENT, DECOMPOSED, "x\\y.jpg"]
    assert names.find(f"./{ACCENT}") is None


def test_spellings_are_found_again():
    for name in ("a/b.jpg", ACCENT, DECOMPOSED):
        assert spellings(name)[0] == name
        assert all(ImageNames([name]).find(spelling) == name for spelling in spellings(name))


def test_what_does_not_match_is_counted_with_an_example_and_what_it_is_like():
    names = ImageNames(["photos/IMG_1.JPG", "b.png"])
    assert join_note("--boxes", 3, [], names) == ["--boxes: all 3 rows name an image"]
    assert join_note("--boxes", 3, ["img_1.jpg"], names) == [
        "--boxes: 2 of 3 rows name an image, 1 name none, e.g. 'img_1.jpg' (there is 'photos/IMG_1.JPG')"
    ]
    assert join_note("--boxes", 9, ["zz", "b"], names)[0].endswith("2 name none, e.g. 'zz'")
    with pytest.raises(
        DataError, match=r"^--boxes: none of 2 rows names an image: the table says 'b' \(there is 'b.png'\)"
    ):
        join_note("--boxes", 2, ["b", "c"], names)
    assert join_note("--boxes", 0, [], names) == ["--boxes: all 0 rows name an image"]
