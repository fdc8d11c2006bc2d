"""Frames of videos as images of a source: which are taken, their names, their splits, and what is said of the others."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm.datasets.chosen_files import list_sources
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.listing import NoImageError
from ray_kplm.datasets.readers.folder_videos import split_videos
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.imaging.crops import decode_crop
from ray_kplm.schemas import TEST, TRAIN
from ray_kplm.steps.ingest import ingest
from tests.clips import number_of, write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three videos, a picture and a broken video."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "more").mkdir()
    for name, frames in (("a.mp4", 25), ("more/b.mkv", 12), ("c.mov", 7)):
        write_clip(folder / name, frames=frames)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / "photo.png")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def names(listing) -> dict[str, list[str]]:
    return {split: [crop.image_id for crop in crops] for split, crops in listing.splits.items()}


def images(listing, split: str = TRAIN) -> list[dict]:
    return listing.read_part(listing.splits[split]).images.to_pylist()


def test_every_nth_frame_is_an_image_of_its_videos_sequence(folder):
    listing = list_sources(folder, IngestOptions(every=10, test_share=0.0))
    assert names(listing) == {
        TRAIN: [
            "a.mp4/000000", "a.mp4/000010", "a.mp4/000020", "c.mov/000000", "more/b.mkv/000000", "more/b.mkv/000010",
            "photo.png",
        ],
        TEST: [],
    }  # fmt: skip
    assert listing.sequences
    assert listing.rejected[0][0] == "broken.mp4"
    rows = {row["image_id"]: row for row in images(listing)}
    assert [(row["sequence"], row["frame"]) for row in rows.values()] == [
        ("a.mp4", 0), ("a.mp4", 10), ("a.mp4", 20), ("c.mov", 0), ("more/b.mkv", 0), ("more/b.mkv", 10), (None, None),
    ]  # fmt: skip
    for name, number in (("a.mp4/000020", 20), ("more/b.mkv/000010", 10)):
        assert number_of(decode_crop(pa.scalar(rows[name]["image"]))) == number


def test_videos_of_a_folder_are_left_out_and_named_unless_asked_for(folder):
    listing = list_sources(folder, IngestOptions(test_share=0.0))
    assert names(listing)[TRAIN] == ["photo.png"]
    assert listing.skipped == {".mp4": 2, ".mkv": 1, ".mov": 1}


def test_named_videos_are_taken_whole(folder):
    listing = list_sources([folder / "c.mov", folder / "more/b.mkv"], IngestOptions(test_share=0.0))
    assert names(listing)[TRAIN] == [f"c.mov/{n:06d}" for n in range(7)] + [f"more/b.mkv/{n:06d}" for n in range(12)]
    assert list_sources(folder / "c.mov", IngestOptions(test_share=0.0)).identity != listing.identity


def test_every_is_part_of_the_identity(folder):
    identities = {list_sources(folder / "c.mov", IngestOptions(every=every)).identity for every in (1, 2, 3)}
    assert len(identities) == 3


def test_a_video_is_in_one_split_and_both_splits_have_one(folder):
    listing = list_sources([folder / "a.mp4", folder / "c.mov", folder / "more"], IngestOptions(every=2))
    videos = {split: {row["sequence"] for row in images(listing, split)} for split in (TRAIN, TEST)}
    assert len(videos[TRAIN]) == 2
    assert len(videos[TEST]) == 1
    assert not videos[TRAIN] & videos[TEST]


def test_the_end_of_a_single_video_is_for_testing(folder):
    found = names(list_sources(folder / "a.mp4", IngestOptions(test_share=0.2)))
    assert found[TEST] == [f"a.mp4/{n:06d}" for n in range(20, 25)]
    assert len(found[TRAIN]) == 20


@pytest.mark.parametrize(("videos", "share", "testing"), [(2, 0.1, 1), (10, 0.3, 3), (2, 0.9, 1), (5, 0.0, 0)])
def test_the_share_of_videos_for_testing(videos, share, testing):
    frames = {f"v{video}/{n}": (f"v{video}", n) for video in range(videos) for n in range(3)}
    splits = split_videos(frames, IngestOptions(test_share=share), alone=True)
    assert sum(split == TEST for split in splits.values()) == 3 * testing


def test_folders_that_are_named_as_splits_decide(tmp_path):
    for name in ("train/a.mp4", "test/b.mp4"):
        (tmp_path / name).parent.mkdir()
        write_clip(tmp_path / name, frames=3)
    found = names(list_sources(tmp_path, IngestOptions(every=1)))
    assert found == {
        split: [f"{split}/{video}/{n:06d}" for n in range(3)] for split, video in ((TRAIN, "a.mp4"), (TEST, "b.mp4"))
    }


def test_boxes_are_given_for_frames_by_their_names(folder, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\na.mp4/000003,0,0,50,40\na.mp4/000003,40,0,90,40\n")
    listing = list_sources(folder / "a.mp4", IngestOptions(boxes=str(tmp_path / "boxes.csv"), test_share=0.0))
    assert [row["image_id"] for row in images(listing)] == ["a.mp4/000003#0", "a.mp4/000003#1"]
    assert ("a.mp4/000004", "no box") in listing.rejected


def test_a_frame_with_too_many_pixels_is_refused_before_it_is_decoded(folder):
    with pytest.raises(NoImageError, match=r"c\.mov: too large: 96 x 64"):
        list_sources(folder / "c.mov", IngestOptions(max_pixels=1000))


def test_without_pyav_a_named_video_is_one_line_that_names_the_extra(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "av" else sys.modules.get(name))
    with pytest.raises(ConfigError, match="extra video") as caught:
        list_sources(folder / "c.mov", IngestOptions())
    assert "\n" not in str(caught.value)


def test_several_sources_are_of_no_published_format(folder):
    with pytest.raises(DataError, match="coco"):
        list_sources([folder / "a.mp4", folder / "c.mov"], IngestOptions(format="coco"))


@pytest.mark.usefixtures("ray_cluster")
def test_ingest_makes_a_dataset_with_sequences_of_videos(folder, tmp_path):
    options = IngestOptions(every=5, part_images=3)
    report = ingest([folder / "a.mp4", folder / "c.mov", folder / "broken.mp4"], tmp_path / "data", options)
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.has_sequences
    assert report.rejected == {"unreadable": 1}
    rows = [
        (row["sequence"], row["frame"])
        for split in (TRAIN, TEST)
        for part in dataset.parts(split)
        for row in pq.read_table(f"{tmp_path}/data/{split}/images/{part}").to_pylist()
    ]
    assert sorted(rows) == [("a.mp4", n) for n in range(0, 25, 5)] + [("c.mov", 0), ("c.mov", 5)]
    assert ingest([folder / "a.mp4", folder / "c.mov", folder / "broken.mp4"], tmp_path / "data", options).existed
