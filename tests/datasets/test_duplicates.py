"""Files and stored pictures that are the same."""

import numpy as np

from ray_kplm.datasets import duplicates
from ray_kplm.datasets.duplicates import Repeat, digests_of, find_repeats, same_content
from ray_kplm.datasets.source_files import SourceFile, list_files
from ray_kplm.storage import Folder


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


def test_same_content_is_found_without_reading_what_differs(tmp_path, monkeypatch):
    long = bytes(range(256)) * 64
    contents = {
        "a": long, "b": long[:-1] + b"!", "c": long, "d": b"!" + long[1:], "e": b"short", "f": b"short", "g": b"",
        "h": b"", "i": b"trohs", "j": long, "k": long + b"!",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files, _ = list_files(Folder.at(tmp_path))
    digest, read = duplicates._file_digest, []
    monkeypatch.setattr(duplicates, "_file_digest", lambda source, path: read.append(path) or digest(source, path))
    groups = same_content(Folder.at(tmp_path), [*files, SourceFile("nowhere", 5, 0)])
    assert sorted(groups) == [["a", "c", "j"], ["e", "f"]]
    assert sorted(read) == ["a", "b", "c", "j"]
