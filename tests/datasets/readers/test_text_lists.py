"""Text lists as editors, spreadsheets and shells leave them."""

import pytest

from ray_kplm.datasets.readers.text_lists import decode_text, read_rows

TEXT = "3\nname x y\na.jpg 1 2\nb.jpg  3\t4\n\nmü.jpg 5 6\n"
ROWS = [["a.jpg", "1", "2"], ["b.jpg", "3", "4"], ["mü.jpg", "5", "6"]]


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        ("\n\n" + TEXT + "\n  \n\t\n").encode(),
        TEXT.replace("b.jpg  3\t4", "3\nname  x y\nb.jpg 3 4").encode(),  # two lists, one after the other
        TEXT.rstrip("\n").encode(),
        b"3\nname, x, y\na.jpg, 1, 2\nb.jpg ,3,4\n\nm\xc3\xbc.jpg,5 , 6\n",
        b"3\nname;x;y\n\"a.jpg\";1;2\n'b.jpg';3;4\nm\xc3\xbc.jpg;5;6\n",
        TEXT.removeprefix("3\nname x y\n").encode(),  # the headings were removed by hand
    ],
)
def test_a_list_has_the_same_rows_however_it_was_saved(content):
    assert read_rows(content, headings=2) == ROWS


def test_without_headings_every_line_is_an_item():
    assert read_rows(b"1 a/b.jpg\n2\n\n7 left eye\n") == [["1", "a/b.jpg"], ["2"], ["7", "left", "eye"]]


def test_a_name_with_a_space_needs_commas():
    assert read_rows(b"my cat.jpg, 1, 2\n") == [["my cat.jpg", "1", "2"]]


def test_broken_characters_are_replaced():
    assert decode_text(b"Mu\xf1oz.jpg") == "Mu\ufffdoz.jpg"
