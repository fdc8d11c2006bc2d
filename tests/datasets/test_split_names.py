"""Splits by the names of folders and files."""

import pytest

from ray_kplm.datasets.split_names import are_splits, role_of_folder, role_of_path, roles_in, split_of_role, words_of


def test_words():
    assert words_of("person_keypointsTrain2017") == ["person", "keypoints", "train"]
    assert words_of("MICE-train.v2") == ["mice", "train", "v"]


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("restrained_mice_val", {"val"}),
        ("mice-train", {"train"}),
        ("contest", set()),
        ("latest_retrained", set()),
        ("interval", set()),
        ("person_keypoints_trainval2017", {"train"}),
        ("ap10k-test-split1", {"test"}),
        ("Validation", {"val"}),
        ("train_test", {"train", "test"}),
    ],
)
def test_words_of_a_name_say_the_split(name, roles):
    assert roles_in(name) == roles


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"),
        ("Train", "train"),
        ("TRAINING", "train"),
        ("train2017", "train"),
        ("training_set", "train"),
        ("Test images", "test"),
        ("valid", "val"),
        ("train stations", None),
        ("bullet_train", None),
        ("cats", None),
        ("contest", None),
        ("", None),
    ],
)
def test_only_a_whole_name_makes_a_folder_of_a_split(name, role):
    assert role_of_folder(name) == role


def test_the_first_folder_that_says_a_split_decides_and_files_do_not():
    assert role_of_path("images/test/train/x.jpg") == "test"
    assert role_of_path("bottle/train/good/1.png") == "train"
    assert role_of_path("cats/train.jpg") is None


def test_val_is_for_testing_unless_there_is_a_test_split():
    assert split_of_role("val", {"train", "val"}) == "test"
    assert split_of_role("val", {"train", "val", "test"}) == "train"
    assert split_of_role("test", {"train", "val", "test"}) == "test"


@pytest.mark.parametrize(
    ("roles", "splits"),
    [
        ({"train", "test"}, True),
        ({"train", "val"}, True),
        ({"val", "test"}, True),
        ({"train"}, False),
        ({"test"}, False),
        ({"val"}, False),
        (set(), False),
    ],
)
def test_splits_need_something_to_train_and_to_test_on(roles, splits):
    assert are_splits(roles) == splits
