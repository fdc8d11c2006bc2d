"""dataset.json: a value of a wrong type, or a file that is no JSON, is one line that names file and key."""

import json

import pytest

from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.description import landmark_description, read_description
from ray_kplm.errors import DamageError, DataError
from ray_kplm.storage import Folder

WHOLE = {
    "name": "mine",
    "landmark_names": ["a", "b"],
    "swap_pairs": [[0, 1]],
    "nme": {"type": "bbox_sqrt"},
    "licence": "CC",
    "more": [{"of": "mine"}],
}


def test_a_sound_description_is_read_whole(tmp_path):
    assert read_description(Folder.at(tmp_path)) == {}
    (tmp_path / "dataset.json").write_text("\ufeff" + json.dumps(WHOLE), encoding="utf-8")
    assert read_description(Folder.at(tmp_path)) == WHOLE
    (tmp_path / "dataset.json").write_text(json.dumps(dict.fromkeys(WHOLE)))
    kept = landmark_description(read_description(Folder.at(tmp_path)), 2, "f", "folder")
    assert kept == {
        "name": "folder",
        "landmark_names": ["landmark_0", "landmark_1"],
        "swap_pairs": [],
        "nme": {},
        "licence": "",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "mine",}', "is no JSON .*line 1 column 17"),
        ("", "is no JSON"),
        (b"\xff\xfe{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "must hold an object with keys such as name, is a list"),
        ("3", "must hold an object .* is a int"),
        ('{"name": 3}', "name must be text, is '3'"),
        ('{"landmark_names": "eye"}', "landmark_names must be a list of text, is 'eye'"),
        ('{"landmark_names": ["eye", 1]}', "landmark_names must be a list of text"),
        ('{"swap_pairs": [0, 1]}', "swap_pairs must be a list of pairs"),
        ('{"swap_pairs": [[0, 1, 2]]}', "swap_pairs must be a list of pairs"),
        ('{"swap_pairs": [[0, "1"]]}', "swap_pairs must be a list of pairs"),
        ('{"nme": "bbox_sqrt"}', "nme must be an object with a type"),
        ('{"nme": {"kind": "bbox_sqrt"}}', "nme must be an object with a type"),
        ('{"licence": {"name": "CC"}}', "licence must be text"),
    ],
)
def test_a_faulty_description_is_one_line(tmp_path, content, message):
    (tmp_path / "dataset.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"dataset\.json: {message}") as caught:
        read_description(Folder.at(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises((DataError, DamageError), match=r"dataset\.json: ") as caught:
        Dataset.open(opened(Folder.at(tmp_path)))
    assert "\n" not in str(caught.value)


def opened(folder: Folder) -> Folder:
    folder.write_json("manifest.json", {"kind": "dataset", "fingerprint": "f", "splits": {}, "landmarks": 0})
    return folder


def test_names_and_pairs_are_of_the_landmarks_that_there_are():
    with pytest.raises(DataError, match=r"^f: 2 landmark_names, but images have 3 landmarks"):
        landmark_description(WHOLE, 3, "f", "x")
    with pytest.raises(DataError, match=r"^f: swap_pairs names landmark 5, but images have 2, from 0 on"):
        landmark_description({**WHOLE, "swap_pairs": [[0, 5]]}, 2, "f", "x")
    assert landmark_description(WHOLE, 0, "f", "x")["landmark_names"] == ["a", "b"]
