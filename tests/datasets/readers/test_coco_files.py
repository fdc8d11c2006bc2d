"""COCO files as labelling tools write them: odd rows, several files, and where the pictures are."""

import json

import pytest

from ray_kplm.datasets.readers.coco import list_coco
from ray_kplm.errors import DataError

NAMES = ["a", "b", "c"]
KEYPOINTS = [20, 20, 2, 50, 40, 1, 0, 0, 0]
CATEGORIES = [{"id": 1, "name": "mouse", "keypoints": NAMES}]
FILE = "annotations/train.json"


def ann(number, **more):
    """An object in the image of its number; a value of ... leaves a field out."""
    row = {"id": number, "image_id": number, "category_id": 1, "keypoints": KEYPOINTS, "bbox": [5, 5, 60, 50], **more}
    return {name: value for name, value in row.items() if value is not ...}


def image(number, **more):
    row = {"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 90, **more}
    return {name: value for name, value in row.items() if value is not ...}


def put(source, rows, images=None, file=FILE, categories=CATEGORIES):
    images = [image(number) for number in (1, 2, 3)] if images is None else images
    source.text(file, json.dumps({"images": images, "annotations": rows, "categories": categories}))


def pictures(source, folder="images", numbers=(1, 2, 3)):
    for number in numbers:
        source.picture(f"{folder}/{number}.jpg", dot=(20 + number, 30))


def read(source, **options):
    return source.read(list_coco, test_share=0, **options)


def reasons(source) -> dict[str, str]:
    return dict(source.read(list_coco, test_share=0).listing.rejected)


ODD_ROWS = {
    "null keypoints": (ann(3, keypoints=None), "keypoints is null"),
    "nested keypoints": (ann(3, keypoints=[[1, 1, 2]] * 3), "keypoints holds more than numbers"),
    "few keypoints": (ann(3, keypoints=KEYPOINTS[:-1]), "keypoints has 8 numbers, 3 keypoints need 9"),
    "text in keypoints": (ann(3, keypoints=["20", *KEYPOINTS[1:]]), "keypoints holds more than numbers"),
    "text as keypoints": (ann(3, keypoints="1,2,2"), "keypoints is '1,2,2'"),
    "object as keypoints": (ann(3, keypoints={"a": [1, 1]}), "keypoints is"),
    "NaN": (ann(3, keypoints=[float("nan"), *KEYPOINTS[1:]]), "no finite number"),
    "huge": (ann(3, keypoints=[10**400, *KEYPOINTS[1:]]), "keypoints holds more than numbers"),
    "confidence as v": (ann(3, keypoints=[1, 1, 0.9, *KEYPOINTS[3:]]), "v = 0.9"),
    "null bbox": (ann(3, bbox=None), "bbox is null"),
    "no bbox": (ann(3, bbox=...), "bbox is missing"),
    "empty bbox": (ann(3, bbox=[]), "bbox is []"),
    "short bbox": (ann(3, bbox=[1, 2, 3]), "bbox has 3 numbers"),
    "negative bbox": (ann(3, bbox=[50, 50, -20, 30]), "bbox is [50, 50, -20, 30]"),
    "text in bbox": (ann(3, bbox=["1", 2, 3, 4]), "bbox holds more than numbers"),
    "infinite bbox": (ann(3, bbox=[1, 1, float("inf"), 5]), "bbox is [1, 1, inf, 5]"),
    "object as bbox": (ann(3, bbox={"x": 1}), "bbox is {'x': 1}"),
    "no category": (ann(3, category_id=...), "category_id is null"),
    "unknown category": (ann(3, category_id=8), "category_id is 8"),
}


@pytest.mark.parametrize("kind", ODD_ROWS)
def test_an_odd_row_is_rejected_with_its_file_id_and_field(source, kind):
    row, message = ODD_ROWS[kind]
    pictures(source)
    put(source, [ann(1), ann(2), row])
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0", "images/2.jpg#0"}
    [(what, reason)] = result.listing.rejected
    assert what == "images/3.jpg#0"
    assert f"{FILE}, annotation 3: " in reason
    assert message in reason
    assert len(reason) < 250


@pytest.mark.parametrize("row", [None, [1, 2], "text", 7])
def test_a_row_that_is_no_object_is_rejected_with_its_place(source, row):
    pictures(source)
    put(source, [ann(1), row, ann(2)])
    result = read(source)
    assert len(result.splits["train"]) == 2
    assert list(result.rejected) == ["row 1 of annotations"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            image(3, file_name=..., coco_url="http://x/3.jpg"),
            "file_name is missing; it has coco_url, height, id, width",
        ),
        (image(3, file_name=None), "file_name is null"),
        (image(3, file_name=3), "file_name is 3"),
        (image(3, id=...), "id is missing"),
        (image(3, id=None), "id is null"),
        (image(3, id=True), "id is True"),
        (None, "it is no object but null"),
    ],
)
def test_an_odd_image_is_rejected_and_so_are_its_objects(source, row, message):
    pictures(source)
    put(source, [ann(1), ann(2), ann(3)], [image(1), image(2), row])
    found = dict(read(source).listing.rejected)
    assert read(source).splits["train"] == {"images/1.jpg#0", "images/2.jpg#0"}
    assert len(found) == 2
    assert found["annotation 3"].startswith("missing: ")
    assert any(message in reason for reason in found.values())


def test_objects_of_unknown_images_are_rejected(source):
    pictures(source)
    put(source, [ann(1), ann(2, image_id=404), ann(3, image_id=...)])
    assert {what: reason.partition(":")[0] for what, reason in reasons(source).items()} == {
        "annotation 2": "missing",
        "annotation 3": "missing",
    }


def test_what_is_left_out_is_counted(source):
    pictures(source)
    rows = [ann(1), ann(2, keypoints=[0] * 9), ann(3, keypoints=...), ann(4, iscrowd=1), ann(5, category_id=2)]
    put(source, rows, categories=[*CATEGORIES, {"id": 2, "name": "car"}])
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0"}
    assert not result.listing.rejected
    said = "objects left out: 2 without a labelled keypoint, 1 crowds, 1 of categories without keypoints"
    assert said in result.listing.notes


def test_a_category_without_id_is_rejected_and_the_others_are_used(source):
    pictures(source)
    put(
        source, [ann(1)], categories=[*CATEGORIES, {"name": "rat", "keypoints": NAMES}, None, {"id": 3, "keypoints": 7}]
    )
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0"}
    assert list(result.rejected) == [f"{FILE}: row {number} of categories" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("in_images", "in_annotations"), [(7, "7"), ("7", 7), (7.0, 7), (7, 7.0), (" 7", "7"), ("x", "x")]
)
def test_ids_are_the_same_in_any_spelling_of_a_number(source, in_images, in_annotations):
    pictures(source)
    put(source, [ann(1, image_id=in_annotations, category_id="1")], [image(1, id=in_images)])
    assert read(source).splits["train"] == {"images/1.jpg#0"}


def test_an_id_of_two_pictures_is_used_for_neither(source):
    pictures(source)
    put(source, [ann(1), ann(2)], [image(1), image(1, file_name="3.jpg"), image(2), image(2)])
    result = read(source)
    assert result.splits["train"] == {"images/2.jpg#0"}  # the same row twice is one
    assert result.rejected == {"image 1": "repeated", "annotation 1": "missing"}


def test_the_same_object_twice_is_one_and_another_of_the_same_id_is_another(source):
    pictures(source)
    put(source, [ann(1), ann(1), ann(1, bbox=[10, 10, 50, 50]), ann(2, id=1)])
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0", "images/1.jpg#2", "images/2.jpg#0"}
    assert result.rejected == {"images/1.jpg#1": "repeated"}


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [("images", {"1": "1.jpg"}, "an object"), ("annotations", None, "null"), ("categories", "mouse", "str")],
)
def test_a_table_that_is_no_list_is_one_line_with_file_and_field(source, field, value, kind):
    pictures(source)
    put(source, [ann(1)])
    content = json.loads((source.root / FILE).read_text())
    source.text(FILE, json.dumps({**content, field: value}))
    with pytest.raises(DataError, match=rf"train\.json: {field} must be a list .*, but is {kind}"):
        read(source)


def test_segmentations_of_any_kind_and_wide_characters_change_nothing(source):
    pictures(source)
    put(source, [ann(1, segmentation={"counts": "PPYo0", "size": [90, 100]}), ann(2, segmentation=[[1, 2]])])
    (source.root / FILE).write_bytes((source.root / FILE).read_text().encode("utf-8-sig"))
    assert len(read(source).splits["train"]) == 2


@pytest.mark.parametrize(
    ("file", "folder", "prefix"),
    [
        (FILE, "images", ""),
        (FILE, "images", "./"),
        (FILE, "images", "images/"),
        (FILE, "images", "images\\"),
        (FILE, "images/deep", "deep/"),
        (FILE, "train", ""),
        (FILE, "train", "train/"),
        (FILE, "annotations", ""),
        (FILE, ".", ""),
        (FILE, "mine/photos", "mine/photos/"),
        (FILE, "images", "source/images/"),
        (FILE, "images", "/home/someone/mice/images/"),
        (FILE, "images", "/home/someone/photos/"),
        (FILE, "train", "C:\\data\\train\\"),
        (FILE, "images", "http://example.org/images/"),
        (FILE, "images", "{source}/images/"),
        ("annotations/person_keypoints_train2017.json", "train2017", "train2017/"),
        ("annotations/mice-train.json", "train", ""),
    ],
)
def test_pictures_are_found_where_tools_leave_them(source, file, folder, prefix):
    pictures(source, folder)
    prefix = prefix.replace("{source}", str(source.root))
    put(source, [ann(n) for n in (1, 2, 3)], [image(n, file_name=f"{prefix}{n}.jpg") for n in (1, 2, 3)], file)
    result = read(source)
    assert not result.listing.rejected
    place = "" if folder == "." else f"{folder}/"
    assert result.splits["train"] == {f"{place}{n}.jpg#0" for n in (1, 2, 3)}
    for number in (1, 2, 3):
        name = f"{place}{number}.jpg#0"
        assert abs(result.light(name) - result.points(name)[0] - [number, 10]).max() < 1


def test_a_name_alone_is_no_proof_where_two_paths_have_it(source):
    pictures(source, numbers=(1,))
    names = ["/data/mon/1.jpg", "/data/tue/1.jpg"]
    put(source, [ann(1), ann(2)], [image(n, file_name=name) for n, name in enumerate(names, start=1)])
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0"}
    assert list(result.rejected.values()) == ["missing"]
    put(source, [ann(1)], [image(1, file_name="other/1.jpg")])
    assert reasons(source) == {"images/other/1.jpg#0": "missing: no picture images/other/1.jpg"}


def test_a_missing_picture_is_rejected_with_the_path_that_was_looked_for(source):
    pictures(source, numbers=(1,))
    put(source, [ann(1), ann(2)])
    result = read(source)
    assert dict(result.listing.rejected) == {"images/2.jpg#0": "missing: no picture images/2.jpg"}
    assert "images of train.json 1 of 3" in result.listing.notes[-1]
    assert "annotations of train.json 2 of 2" in result.listing.notes[-1]


def test_sizes_of_the_file_are_those_of_the_pictures(source):
    source.picture("images/1.jpg", width=200, height=180)
    source.picture("images/2.jpg", width=180, height=200)
    source.picture("images/3.jpg", width=64, height=64)
    put(source, [ann(1), ann(2), ann(3)], [image(1), image(2), image(3, width=0, height=None)])
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0", "images/3.jpg#0"}
    assert result.rejected == {"images/2.jpg#0": "other size"}
    assert result.in_source("images/1.jpg#0")[0] == pytest.approx([40.5, 40.5], abs=1e-3)


def put_files(source, files):
    """Annotation files with the numbers of their pictures."""
    pictures(source, numbers=range(1, 10))
    for file, numbers in files.items():
        rows = [ann(n, id=100 * place + n) for place, n in enumerate(numbers)]
        put(source, rows, [image(n) for n in numbers], f"annotations/{file}.json")


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        ({"mice_train": (1, 2), "mice_val": (3,)}, {1, 2}, {3}),
        ({"restrained_mice_train": (1, 2), "restrained_mice_val": (3,)}, {1, 2}, {3}),
        ({"mice-train": (1,), "mice-test": (3,)}, {1}, {3}),
        ({"MiceTrain": (1,), "MiceTest": (3,)}, {1}, {3}),
        ({"train": (1,), "val": (2,), "test": (3,)}, {1, 2}, {3}),
        ({"cats_train": (1,), "dogs_train": (2,), "cats_val": (3,), "dogs_val": (4,)}, {1, 2}, {3, 4}),
        ({"retrained_train": (1,), "contest_valid": (2,)}, {1}, {2}),
        ({"contest": (1, 2)}, {1, 2}, set()),
    ],
)
def test_words_of_the_files_names_are_the_splits(source, files, train, test):
    put_files(source, files)
    result = read(source)
    assert result.splits == {
        split: {f"images/{number}.jpg#0" for number in numbers} for split, numbers in (("train", train), ("test", test))
    }
    assert any("val are used for training" in note for note in result.listing.notes) == ("test" in files)


@pytest.mark.parametrize(
    "files", [("mice_train", "mice_other"), ("mice_train", "contest"), ("mice_train", "train_test")]
)
def test_of_several_files_each_says_one_split(source, files):
    put_files(source, {file: (number,) for number, file in enumerate(files, start=1)})
    with pytest.raises(DataError, match=rf"{files[1]}\.json: of several files each name must say train, val or test"):
        read(source)


def test_alternative_splits_are_refused_with_the_files(source):
    splits = {
        "ap10k-train-split1": (1, 2),
        "ap10k-val-split1": (3,),
        "ap10k-train-split2": (2, 3),
        "ap10k-val-split2": (1,),
    }
    put_files(source, splits)
    with pytest.raises(DataError, match=r"ap10k-\w+-split\d\.json and .* both splits .* e\.g\. images/\d\.jpg; .*move"):
        read(source)
    for number in (1, 2):
        source.remove(f"annotations/ap10k-{'train' if number == 1 else 'val'}-split2.json")
    assert read(source).splits["test"] == {"images/3.jpg#0"}


def test_two_files_with_the_same_objects_are_refused(source):
    put_files(source, {"a_train": (1, 2, 3), "b_train": (2, 3, 4), "val": (5,)})
    with pytest.raises(DataError, match=r"a_train\.json and annotations/b_train\.json have 2 objects in common"):
        read(source)


def test_two_files_with_other_objects_of_the_same_pictures_are_joined(source):
    put_files(source, {"cats_train": (1, 2), "val": (5,)})
    put(source, [ann(1, bbox=[20, 20, 40, 40])], [image(1)], "annotations/dogs_train.json")
    result = read(source)
    assert result.splits["train"] == {"images/1.jpg#0", "images/1.jpg#1", "images/2.jpg#0"}
    assert len({entry.image_id for entry in result.listing.splits["train"]}) == 3


def test_a_single_file_of_a_split_is_drawn_and_said(source):
    pictures(source)
    put(source, [ann(1), ann(2), ann(3)])
    assert f"{FILE} is the only file of annotations: the test split is drawn from it" in read(source).listing.notes
