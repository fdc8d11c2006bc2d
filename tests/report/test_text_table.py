"""Alignment of text tables."""

from ray_kplm.report.text_table import align, align_values, cell


def test_names_are_aligned_to_the_left_and_numbers_to_the_right():
    lines = align([["a", "long heading", "x"], ["longer", "1", "22"]])
    assert lines == ["a       long heading   x", "longer             1  22"]


def test_chosen_columns_are_aligned_to_the_left_without_trailing_spaces():
    assert align([["a", "1", "note"], ["b", "22", "longer note"]], left=(0, 2)) == [
        "a   1  note",
        "b  22  longer note",
    ]


def test_short_rows_do_not_shift_the_columns():
    assert align([["heading", "x", "y"], ["mean", "10"]]) == ["heading   x  y", "mean     10"]
    assert align([]) == []


def test_a_missing_number_is_a_dash():
    assert [cell(None), cell(1.5), cell(0.25, "{:.0%}")] == ["-", "1.50", "25%"]


def test_values_are_aligned_with_their_names():
    assert align_values({"seconds": 1234.5, "images": 10}) == ["seconds  1,234.500", "images          10"]
