"""Landmarks of videos: frames as images, smoothing, jitter, the drawn video. The detector is untrained."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_kplm import LandmarkDetector, schemas
from ray_kplm.errors import DataError, RunError
from ray_kplm.inference.images import PredictOptions, predict_images
from ray_kplm.inference.videos import RenderOptions, jitter_lines, object_number, smooth_parts
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.video.options import SmoothOptions
from ray_kplm.video.reader import index_video, read_frames
from tests.clips import write_clip

K = 3
EURO = SmoothOptions("one-euro")


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run) -> Run:
    """A run with a finished stage 2."""
    folder = tmp_path_factory.mktemp("runs")
    return untrained_run(folder, K, "network.image_size=32", "compute.batch_images=8", seed=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A picture, a video, a turned video in a folder, and a file that is no video."""
    folder = tmp_path_factory.mktemp("source")
    Image.new("RGB", (60, 40), (200, 30, 90)).save(folder / "a.png")
    write_clip(folder / "clip.mp4", frames=30)
    (folder / "more").mkdir()
    write_clip(folder / "more/turned.mov", frames=5, rotation=90)
    (folder / "broken.mp4").write_text("no video")
    return folder


def rows(out) -> list[dict]:
    tables = [pq.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    assert all(table.schema.equals(schemas.SOURCE_LANDMARKS) for table in tables)
    return pa.concat_tables(tables).to_pylist()


def tree(path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def predicted(run, source, tmp_path_factory):
    """Landmarks of `source`, not to be written to."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    return out, predict_images(run, source, out, PredictOptions(part_images=8))


def test_frames_and_pictures_are_images(predicted):
    out, report = predicted
    found = {row["image_id"]: row for row in rows(out)}
    assert list(found) == [
        "a.png", *(f"clip.mp4/{number:06d}" for number in range(30)), *(f"more/turned.mov/{number:06d}" for number in range(5)),
    ]  # fmt: skip
    assert (report.images, report.rejected) == (36, {"unreadable": 1})
    assert pq.read_table(out / "rejected.parquet")["source"].to_pylist() == ["broken.mp4"]
    picture, frame, turned = found["a.png"], found["clip.mp4/000012"], found["more/turned.mov/000003"]
    assert (picture["sequence"], picture["frame"], picture["time"]) == (None, None, None)
    assert (frame["sequence"], frame["frame"], frame["time"]) == ("clip.mp4", 12, pytest.approx(12 / 25))
    assert (frame["width"], frame["height"]) == (96, 64)
    assert (turned["width"], turned["height"]) == (64, 96)


def test_landmarks_are_those_of_each_frame_in_its_own_pixels(run, source, predicted):
    found = {row["image_id"]: row for row in rows(predicted[0])}
    detector, folder = LandmarkDetector.load(run.folder.path), Folder.at(source)
    for video, numbers in (("clip.mp4", [0, 7, 8, 29]), ("more/turned.mov", [4])):
        frames = list(frames_of(folder, video, numbers))
        for frame, expected in zip(frames, detector.predict([frame.rgb for frame in frames]), strict=True):
            np.testing.assert_allclose(found[f"{video}/{frame.number:06d}"]["xy"], expected.xy, atol=1e-3)


def frames_of(folder, video, numbers):
    return read_frames(folder, video, index_video(folder, video), numbers)


def test_an_interrupted_prediction_continues_with_the_missing_parts(run, source, tmp_path):
    options = PredictOptions(part_images=8, smooth=EURO)
    predict_images(run, source / "clip.mp4", tmp_path / "whole", options)
    predict_images(run, source / "clip.mp4", tmp_path / "out", options)
    # The state after a killed driver: parts as they were detected, some of them smoothed, and no manifest.
    raw = tmp_path / "raw"
    predict_images(run, source / "clip.mp4", raw, PredictOptions(part_images=8))
    out = Folder.at(tmp_path / "out")
    claim = {key: out.read_json("manifest.json")[key] for key in ("step", "fingerprint", "reads", "inputs")}
    out.write_json("claim.json", {**claim, "began": 0})
    out.delete_file("manifest.json")
    for name in ("part-00000.parquet", "part-00002.parquet"):
        out.delete_file(name)
        (out / ".not_smoothed").write_table(name, pq.read_table(raw / name))
    again = predict_images(run, source / "clip.mp4", tmp_path / "out", options)
    assert not again.existed
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_smoothed_landmarks_are_written_with_the_jitter_before_and_after(run, source, predicted, tmp_path):
    report = predict_images(run, source, tmp_path / "out", PredictOptions(part_images=8, smooth=EURO))
    before, after = rows(predicted[0]), rows(tmp_path / "out")
    assert [row | {"xy": None} for row in before] == [row | {"xy": None} for row in after]
    assert before[0]["xy"] == after[0]["xy"]  # of the picture
    assert before[1]["xy"] == after[1]["xy"]  # of the first frame
    assert before[9]["xy"] != after[9]["xy"]  # of the first frame of another part
    figures = report.jitter["clip.mp4"]
    assert 0 < figures["after"] < figures["before"]
    assert predicted[1].jitter["clip.mp4"] == {name: figures[name] for name in ("before", "before_of_size")}
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["jitter"] == report.jitter == json.loads(json.dumps(report.figures()))["jitter"]
    assert manifest["reads"]["smooth"]["min_cutoff"] == 1.0
    assert f"clip.mp4: jitter {figures['before']:.3g} px a frame" in str(report)
    assert "; smoothed" in str(report)


def test_smoothing_is_the_same_in_one_part_and_in_many(run, source, tmp_path):
    for name, images in (("one", 100), ("many", 4)):
        predict_images(run, source / "clip.mp4", tmp_path / name, PredictOptions(part_images=images, smooth=EURO))
    assert rows(tmp_path / "one") == rows(tmp_path / "many")


def test_another_smoothing_needs_another_folder(run, source, tmp_path):
    predict_images(run, source / "clip.mp4", tmp_path / "out", PredictOptions(smooth=EURO))
    with pytest.raises(RunError, match="smooth"):
        predict_images(
            run, source / "clip.mp4", tmp_path / "out", PredictOptions(smooth=SmoothOptions("one-euro", 2.0))
        )
    assert predict_images(run, source / "clip.mp4", tmp_path / "out", PredictOptions(smooth=EURO)).existed


def test_objects_of_a_frame_are_smoothed_apart(tmp_path):
    def row(frame: int, number: int, x: float) -> dict:
        return {
            "image_id": f"v.mp4/{frame:06d}#{number}", "xy": [[x, 0.0]], "confidence": [1.0], "probability": None,
            "found": [True], "width": 100, "height": 100, "sequence": "v.mp4", "frame": frame, "time": frame / 25,
        }  # fmt: skip

    given = [row(frame, number, 50.0 * number) for frame in range(4) for number in (0, 1)]
    Folder.at(tmp_path).write_table("part-00000.parquet", pa.Table.from_pylist(given, schemas.SOURCE_LANDMARKS))
    figures = smooth_parts(Folder.at(tmp_path), Folder.at(tmp_path / "out"), ["part-00000.parquet"], EURO)
    assert rows(tmp_path / "out") == given  # both stand still
    assert figures["v.mp4"]["before"] == figures["v.mp4"]["after"] == 0
    assert (object_number("a#1.mp4/000012"), object_number("a#1.mp4/000012#3")) == (0, 3)


def test_a_video_is_drawn_with_its_frames_times_and_landmarks(run, source, tmp_path):
    render = RenderOptions(str(tmp_path / "drawn/clip.mp4"), trail=0, numbers=False)
    report = predict_images(run, source / "clip.mp4", tmp_path / "out", PredictOptions(part_images=8, render=render))
    assert report.rendered == (str(tmp_path / "drawn/clip.mp4"),)
    assert tree(tmp_path / "drawn") == ["clip.mp4"]
    given, drawn = (index_video(Folder.at(path), "clip.mp4") for path in (source, tmp_path / "drawn"))
    np.testing.assert_allclose(drawn.seconds, given.seconds, atol=1e-4)
    assert drawn.size == given.size
    before = frames_of(Folder.at(source), "clip.mp4", range(30))
    after = frames_of(Folder.at(tmp_path / "drawn"), "clip.mp4", range(30))
    near, far = [], []
    for row, old, new in zip(rows(tmp_path / "out"), before, after, strict=True):
        difference = np.abs(new.rgb.astype(int) - old.rgb).max(axis=2)
        places = np.rint(row["xy"]).astype(int)
        grid = np.stack(np.meshgrid(np.arange(96), np.arange(64)), axis=-1)
        distance = np.linalg.norm(grid[:, :, None] - places, axis=-1).min(axis=-1)
        far.append(difference[distance > 12].mean())
        near += [difference[y, x] for x, y in places if 0 <= x < 96 and 0 <= y < 64]
    assert np.mean(far) < 5
    assert np.mean(near) > 40


def test_several_videos_are_drawn_into_a_folder(run, source, tmp_path):
    options = PredictOptions(render=RenderOptions(str(tmp_path / "drawn")))
    predict_images(run, source, tmp_path / "out", options)
    assert tree(tmp_path / "drawn") == ["clip.mp4", "more/turned.mov.mp4"]
    assert index_video(Folder.at(tmp_path / "drawn"), "more/turned.mov.mp4").size == (64, 96)
    again = predict_images(run, source, tmp_path / "out", options)
    assert again.existed
    assert len(again.rendered) == 2


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [(".", "out.mp4", "2 videos"), ("a.png", "out.mp4", "no video"), ("clip.mp4", "{source}", "replace the source")],
)
def test_drawing_that_cannot_be_is_refused_before_predicting(run, source, tmp_path, name, path, words):
    options = PredictOptions(render=RenderOptions(str(tmp_path / path.format(source=source))))
    with pytest.raises(DataError, match=words) as caught:
        predict_images(run, source / name, tmp_path / "out", options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pictures_are_not_smoothed(run, source, tmp_path):
    with pytest.raises(DataError, match="--smooth one-euro: the source has no video file"):
        predict_images(run, source / "a.png", tmp_path / "out", PredictOptions(smooth=EURO))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x18ftypisom" + bytes(20)])
def test_a_broken_video_alone_is_one_line(run, tmp_path, content):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"clip\.mp4: unreadable") as caught:
        predict_images(run, tmp_path / "clip.mp4", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_cut_video_has_its_frames_and_a_line_about_the_others(run, tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", frames=60).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    options = PredictOptions(render=RenderOptions(str(tmp_path / "r.mp4")))
    report = predict_images(run, tmp_path / "cut.mkv", tmp_path / "out", options)
    found = rows(tmp_path / "out")
    assert 20 < report.images == len(found) < 40
    assert [row["frame"] for row in found] == list(range(len(found)))
    assert len(index_video(Folder.at(tmp_path), "r.mp4")) == len(found)


def test_jitter_of_a_video_without_landmarks_is_said_in_words():
    figures = {"v.mp4": {"before": None, "before_of_size": None}}
    assert jitter_lines(figures) == ["v.mp4: no landmark is found in three successive frames"]
