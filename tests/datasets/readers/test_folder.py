"""Folders of images: listing, splits, and the mapping of boxes and landmarks to the crop frame."""

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm import schemas
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.readers.folder import list_folder
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder


def put(folder, name, image=None, **options):
    """Save a picture below `folder`; each name has its own colour."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = sum(map(ord, name)) % 256
    (image or Image.new("RGB", (64, 48), (shade, 128, 255 - shade))).save(path, **options)
    return path


def dotted(width, height, x, y) -> Image.Image:
    """Black, with one bright 5 x 5 px dot centred at (x, y)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    return Image.fromarray(pixels)


def centre_of_light(rgb) -> np.ndarray:
    weight = np.asarray(rgb, dtype=float).sum(axis=2)
    weight[weight < 60] = 0
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def ingest(folder, **options):
    """All rows of a folder, all entries read as one part."""
    listing = list_folder(Folder.at(folder), IngestOptions(**options))
    entries = [entry for split in listing.splits.values() for entry in split]
    return listing, listing.read_part(entries)


def rows(table) -> dict:
    return {row["image_id"]: row for row in table.to_pylist()}


def pixels(row) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]))


def reasons(tables, listing) -> dict:
    part = [(row["source"], row["reason"]) for row in tables.rejected.to_pylist()]
    return {source: reason.partition(":")[0] for source, reason in part + listing.rejected}


def write_boxes(path, *lines):
    path.write_text("\n".join(["image,x0,y0,x1,y1", *lines]) + "\n")
    return str(path)


def test_nested_folders_are_listed_and_hidden_and_other_files_left_out(tmp_path):
    put(tmp_path, "a/face.png")
    put(tmp_path, "b/deep/face.PNG")
    put(tmp_path, "face.jpeg")
    put(tmp_path, ".cache/face.png")
    put(tmp_path, "a/.face.png")
    (tmp_path / "a/notes.txt").write_text("hello")
    listing, tables = ingest(tmp_path)
    stored = rows(tables.images)
    assert set(stored) == {"a/face.png", "b/deep/face.PNG", "face.jpeg"}
    assert pixels(stored["a/face.png"]).getpixel((0, 0)) != pixels(stored["b/deep/face.PNG"]).getpixel((0, 0))
    assert listing.other_files == 1
    assert tables.images.schema.names == schemas.IMAGES.names
    assert tables.landmarks is None


def test_small_plain_pictures_keep_their_bytes_others_become_jpeg(tmp_path):
    paths = [put(tmp_path, "plain.png"), put(tmp_path, "plain.jpg")]
    put(tmp_path, "grey.png", Image.new("L", (64, 64), 99))
    put(tmp_path, "large.png", Image.new("RGB", (400, 100)))
    stored = rows(ingest(tmp_path, size=100, min_side=25)[1].images)
    for path in paths:
        assert stored[path.name]["image"] == path.read_bytes()
    assert pixels(stored["grey.png"]).format == "JPEG"
    assert pixels(stored["grey.png"]).mode == "RGB"
    large = stored["large.png"]
    assert pixels(large).size == (large["width"], large["height"]) == (100, 25)
    assert large["crop_to_source"] == [4, 0, 1.5, 0, 4, 1.5]
    assert large["box"] is None


def test_unusable_files_are_rejected_with_their_reason_and_the_others_are_read(tmp_path):
    whole = put(tmp_path, "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    put(tmp_path, "dot.png", Image.new("RGB", (1, 1)))
    put(tmp_path, "line.png", Image.new("RGB", (4000, 40)))
    listing, tables = ingest(tmp_path)
    assert tables.images["image_id"].to_pylist() == ["good.jpg"]
    assert reasons(tables, listing) == {
        "cut.jpg": "truncated",
        "empty.png": "empty file",
        "text.jpg": "not an image",
        "dot.png": "too small",
        "line.png": "too small",
    }
    assert tables.rejected.schema.equals(schemas.REJECTED)


def test_a_file_deleted_since_the_listing_is_rejected(tmp_path):
    put(tmp_path, "a.png")
    listing = list_folder(Folder.at(tmp_path), IngestOptions())
    os.remove(tmp_path / "a.png")
    tables = listing.read_part([entry for split in listing.splits.values() for entry in split])
    assert reasons(tables, listing) == {"a.png": "unreadable"}


@pytest.mark.parametrize("box", ["100,50,149,119", "3,60,40,90", "-30,-10,60,80", "100.4,50.2,250.9,170.1"])
def test_box_is_cropped_and_points_map_both_ways(tmp_path, box):
    source = tmp_path / "source"
    x0, y0, x1, y1 = map(float, box.split(","))
    x, y = int(max(x0, 0) + 20), int(max(y0, 0) + 20)
    put(source, "a.png", dotted(200, 150, x, y))
    pq.write_table(pa.table({"image": ["a.png"], "landmarks": [[[float(x), float(y)]]]}), tmp_path / "l.parquet")
    boxes = write_boxes(tmp_path / "b.csv", f"a.png,{box}")
    _, tables = ingest(source, boxes=boxes, landmarks=str(tmp_path / "l.parquet"), size=60, margin=0.1)
    [row], [annotation] = tables.images.to_pylist(), tables.landmarks.to_pylist()
    assert row["width"] == row["height"] <= 60
    assert np.abs(centre_of_light(pixels(row)) - annotation["landmarks"][0]).max() < 0.2
    to_source = np.reshape(row["crop_to_source"], (2, 3))
    assert np.allclose(coordinates.apply(to_source, np.array(annotation["landmarks"])), [[x, y]], atol=1e-3)
    assert np.allclose(
        coordinates.apply(to_source, np.reshape(row["box"], (2, 2))).ravel(), [x0, y0, x1, y1], atol=1e-3
    )
    assert tables.landmarks.schema.equals(schemas.LANDMARKS)
    assert annotation["visible"] == [True]


def test_a_crop_of_the_size_of_the_picture_is_still_cropped(tmp_path):
    put(tmp_path / "source", "a.png", dotted(64, 64, 40, 30))
    boxes = write_boxes(tmp_path / "b.csv", "a.png,10,0,73,63")
    [row] = ingest(tmp_path / "source", boxes=boxes, margin=0.0)[1].images.to_pylist()
    assert (row["width"], row["height"]) == (64, 64)
    assert np.abs(centre_of_light(pixels(row)) - [30, 30]).max() < 0.2


def test_source_frame_is_the_upright_picture(tmp_path):
    source = tmp_path / "source"
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed after a quarter turn clockwise
    upright = dotted(150, 200, 100, 40)
    put(source, "a.jpg", upright.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)
    pq.write_table(pa.table({"image": ["a.jpg"], "landmarks": [[[100.0, 40.0]]]}), tmp_path / "l.parquet")
    boxes = write_boxes(tmp_path / "b.csv", "a.jpg,80,20,119,59")
    _, tables = ingest(source, boxes=boxes, landmarks=str(tmp_path / "l.parquet"))
    [row], [annotation] = tables.images.to_pylist(), tables.landmarks.to_pylist()
    light = centre_of_light(pixels(row))
    assert np.abs(light - annotation["landmarks"][0]).max() < 0.2
    assert np.abs(coordinates.apply(np.reshape(row["crop_to_source"], (2, 3)), light) - [100, 40]).max() < 0.2


def test_several_boxes_of_an_image_are_crops_and_invalid_boxes_are_rejected(tmp_path):
    source = tmp_path / "source"
    for name in ("one.png", "two.png", "none.png", "bad.png"):
        put(source, name)
    boxes = write_boxes(
        tmp_path / "b.csv",
        "./one.png,0,0,47,47",
        "two.png,0,0,39,39",
        "two.png,20,5,59,44",
        "two.png,70,0,90,40",
        "two.png,5,5,5,20",
        "bad.png,1,2,,4",
        "gone.png,0,0,9,9",
    )
    listing, tables = ingest(source, boxes=boxes)
    assert tables.images["image_id"].to_pylist() == ["one.png", "two.png#0", "two.png#1"]
    assert reasons(tables, listing) == {
        "none.png": "no box",
        "two.png#2": "box outside the image",
        "two.png#3": "box without area",
        "bad.png": "bad box",
        "gone.png": "box names no image",
    }


def test_landmarks_can_name_one_of_several_boxes_and_must_name_an_image(tmp_path):
    source = tmp_path / "source"
    put(source, "a.png")
    boxes = write_boxes(tmp_path / "b.csv", "a.png,0,0,40,40", "a.png,10,10,47,47")
    nan = float("nan")
    table = {
        "image": ["a.png#1", "a.png", "a.png#1"],
        "landmarks": [[[20.0, 20.0], [nan, nan]]] * 3,
        "visible": [[False, True]] * 3,
        "group": ["g", "g", "g"],
    }
    pq.write_table(pa.table(table), tmp_path / "l.parquet")
    listing, tables = ingest(source, boxes=boxes, landmarks=str(tmp_path / "l.parquet"), margin=0.0)
    first, second = tables.landmarks.to_pylist()
    assert np.isnan(first["landmarks"]).all()
    assert first["visible"] == second["visible"] == [False, False]
    assert second["landmarks"][0] == [10, 10]
    assert (first["group"], second["group"]) == (None, "g")
    assert reasons(tables, listing) == {"a.png": "landmarks name no image", "a.png#1": "landmarks repeated"}


def test_split_is_a_seeded_share_and_keeps_groups_and_pictures_together(tmp_path):
    source = tmp_path / "source"
    names = [f"{i:03d}.png" for i in range(200)]
    for name in names:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"listed only: " + name.encode())
    options = IngestOptions(test_share=0.3)
    splits = list_folder(Folder.at(source), options).splits
    assert 40 <= len(splits["test"]) <= 80
    assert splits == list_folder(Folder.at(source), options).splits
    assert splits != list_folder(Folder.at(source), IngestOptions(test_share=0.3, seed=1)).splits
    assert not list_folder(Folder.at(source), IngestOptions(test_share=0)).splits["test"]

    groups = [f"person {i % 20}" for i in range(200)]
    table = pa.table({"image": names, "landmarks": [[[1.0, 2.0]]] * 200, "group": groups})
    pq.write_table(table, tmp_path / "l.parquet")
    splits = list_folder(Folder.at(source), IngestOptions(landmarks=str(tmp_path / "l.parquet"))).splits
    found = {split: {groups[int(crop.path[:3])] for crop in crops} for split, crops in splits.items()}
    assert all(found.values())
    assert not found["train"] & found["test"]

    boxes = write_boxes(tmp_path / "b.csv", *[f"{name},0,0,9,9" for name in names for _ in range(2)])
    splits = list_folder(Folder.at(source), IngestOptions(boxes=boxes)).splits
    assert splits["test"]
    assert not {crop.path for crop in splits["train"]} & {crop.path for crop in splits["test"]}


def test_identity_follows_the_files_and_the_boxes(tmp_path):
    source = tmp_path / "source"
    put(source, "a.png")
    before = list_folder(Folder.at(source), IngestOptions()).identity
    (source / "notes.txt").write_text("no image")
    assert list_folder(Folder.at(source), IngestOptions()).identity == before
    boxes = write_boxes(tmp_path / "b.csv", "a.png,0,0,9,9")
    boxed = list_folder(Folder.at(source), IngestOptions(boxes=boxes)).identity
    write_boxes(tmp_path / "b.csv", "a.png,0,0,9,8")
    assert len({before, boxed, list_folder(Folder.at(source), IngestOptions(boxes=boxes)).identity}) == 3
    os.utime(source / "a.png", ns=(1, 1))
    assert list_folder(Folder.at(source), IngestOptions()).identity != before


@pytest.mark.parametrize(
    ("content", "message"),
    [("image,x0,y0,x1\na.png,1,2,3\n", "no column y1"), ("image,x0,y0,x1,y1\na.png,1,2,3,four\n", "four")],
)
def test_bad_boxes_file_is_one_clear_error(tmp_path, content, message):
    put(tmp_path, "a.png")
    (tmp_path / "b.csv").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        list_folder(Folder.at(tmp_path), IngestOptions(boxes=str(tmp_path / "b.csv")))
    assert str(caught.value).startswith(str(tmp_path / "b.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        ([[[1.0, 2.0]], [[1.0, 2.0]] * 2], r"found \[1, 2\]"),
        ([[[1.0, 2.0, 3.0]]] * 2, "pair x, y"),
        ([None] * 2, "none"),
    ],
)
def test_bad_landmarks_file_is_one_clear_error(tmp_path, landmarks, message):
    put(tmp_path, "a.png")
    table = pa.table({"image": ["a.png", "b.png"], "landmarks": pa.array(landmarks, pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, tmp_path / "l.parquet")
    with pytest.raises(DataError, match=message):
        list_folder(Folder.at(tmp_path), IngestOptions(landmarks=str(tmp_path / "l.parquet")))


def test_a_missing_boxes_file_is_an_error(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match="no such file"):
        list_folder(Folder.at(tmp_path), IngestOptions(boxes=str(tmp_path / "nowhere.csv")))


def test_frames_of_a_video_keep_their_place_and_stay_in_one_split(tmp_path):
    for video in range(12):
        for i in range(3):
            put(tmp_path / "in", f"v{video}/{i}.png")
    put(tmp_path / "in", "still.png")
    lines = [f"v{video}/{i}.png,clip {video},{10 * i}" for video in range(12) for i in range(3)]
    (tmp_path / "frames.csv").write_text("\n".join(["image,sequence,frame", *lines, "gone.png,x,1"]))
    listing, tables = ingest(tmp_path / "in", sequences=str(tmp_path / "frames.csv"), test_share=0.4)
    assert listing.sequences
    found = rows(tables.images)
    assert (found["v3/2.png"]["sequence"], found["v3/2.png"]["frame"]) == ("clip 3", 20)
    assert (found["still.png"]["sequence"], found["still.png"]["frame"]) == (None, None)
    assert reasons(tables, listing) == {"gone.png": "sequence names no image"}
    videos = {
        split: {crop.path.split("/")[0] for crop in crops} - {"still.png"} for split, crops in listing.splits.items()
    }
    assert videos["train"]
    assert videos["test"]
    assert not (videos["train"] & videos["test"])
    assert not ingest(tmp_path / "in")[0].sequences


def listed(folder, count):
    """A folder of files that are listed and never opened."""
    for i in range(count):
        (folder / f"{i:03d}.png").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.png").write_bytes(b"listed only")
    return [f"{i:03d}.png" for i in range(count)]


@pytest.mark.parametrize(
    "values",
    [[0, 0, 1, 1], [0.0, 0.0, 0.5, 0.5], [False, False, True, True], ["", "", "a", "a"], [b"\xff", b"\xff", b"", b""]],
    ids=lambda values: type(values[0]).__name__,
)
@pytest.mark.parametrize("table", ["landmarks", "sequences"])
def test_groups_and_sequences_of_any_type_stay_in_one_split(tmp_path, values, table):
    names = listed(tmp_path / "in", 40)
    column = {"group": values * 10} if table == "landmarks" else {"sequence": values * 10, "frame": list(range(40))}
    points = {"landmarks": [[[1.0, 2.0]]] * 40} if table == "landmarks" else {}
    pq.write_table(pa.table({"image": names, **points, **column}), tmp_path / "t.parquet")
    for seed in range(5):
        options = IngestOptions(test_share=0.5, seed=seed, **{table: str(tmp_path / "t.parquet")})
        splits = list_folder(Folder.at(tmp_path / "in"), options).splits
        found = {split: {values[int(crop.path[:3]) % 4] for crop in crops} for split, crops in splits.items()}
        assert not found["train"] & found["test"]


def test_names_in_other_spellings_are_found_and_what_matches_is_said(tmp_path):
    source = tmp_path / "in"
    for name in ("a.png", "b/M\u00fc.png", "c.png"):
        put(source, name)
    lines = ["./a.png", "b\\Mu\u0308.png", f"{source}/c.png", "C.PNG"]
    boxes = write_boxes(tmp_path / "b.csv", *[f"{name},0,0,39,39" for name in lines])
    listing, tables = ingest(source, boxes=boxes)
    assert sorted(tables.images["image_id"].to_pylist()) == ["a.png", "b/M\u00fc.png", "c.png"]
    assert listing.notes[0] == ("--boxes: 3 of 4 rows name an image, 1 name none, e.g. 'C.PNG' (there is 'c.png')")
    assert reasons(tables, listing) == {"C.PNG": "box names no image"}


@pytest.mark.parametrize("option", ["boxes", "landmarks", "sequences"])
def test_a_table_of_which_no_row_names_an_image_is_refused(tmp_path, option):
    put(tmp_path / "in", "photos/a.png")
    columns = {
        "boxes": {"x0": [0], "y0": [0], "x1": [9], "y1": [9]},
        "landmarks": {"landmarks": [[[1.0, 2.0]]]},
        "sequences": {"sequence": ["v"], "frame": [1]},
    }
    pq.write_table(pa.table({"image": ["a"], **columns[option]}), tmp_path / "t.parquet")
    with pytest.raises(
        DataError, match=rf"^--{option}: none of 1 rows names an image.*'a' \(there is 'photos/a.png'\)"
    ):
        ingest(tmp_path / "in", **{option: str(tmp_path / "t.parquet")})


def test_landmarks_in_two_rows_are_turned_and_a_second_row_of_an_image_is_rejected(tmp_path):
    put(tmp_path / "in", "a.png")
    table = {"image": ["a.png", "a.png"], "landmarks": [[[1.0, 2, 3, 4], [5.0, 6, 7, 8]], [[0.0] * 4] * 2]}
    pq.write_table(pa.table(table), tmp_path / "l.parquet")
    listing, tables = ingest(tmp_path / "in", landmarks=str(tmp_path / "l.parquet"))
    assert tables.landmarks["landmarks"].to_pylist() == [[[1, 5], [2, 6], [3, 7], [4, 8]]]
    assert listing.rejected == [("a.png", "landmarks repeated: the first row is used")]
    assert listing.notes[0].endswith("l.parquet: landmarks are stored as 2 x 4: all x, then all y")


def test_rows_of_a_csv_that_cannot_be_read_are_rejected_and_the_others_used(tmp_path):
    put(tmp_path / "in", "a.png")
    boxes = write_boxes(tmp_path / "b.csv", "a.png,0,0,40,40", "a.png,1,2", "a.png,one,2,3,4")
    listing, tables = ingest(tmp_path / "in", boxes=boxes)
    assert tables.images.num_rows == 1
    assert {source.rpartition("/")[2]: reason for source, reason in listing.rejected} == {
        "b.csv line 3": "bad row: 3 cells where the heading has 5",
        "b.csv line 4": "bad row: column x0 holds 'one', which is no number",
    }
