"""Predicted landmarks as .slp, read back by sleap-io."""

import numpy as np
import sleap_io

from ray_kplm.inference.export import sleap
from ray_kplm.storage import Folder
from tests.inference.export.cases import FLAGS, NAN, ODD, ROWS, TWO


def expected(row: int) -> np.ndarray:
    """(3, 2), with absent landmarks NaN."""
    return np.where(np.array(FLAGS[row])[:, None] > 0, np.array(ROWS[row][1]), NAN)


def test_sleap_io_reads_every_landmark(found, tmp_path):
    assert sleap.write(found, Folder.at(tmp_path)) == []
    labels = sleap_io.load_slp(str(tmp_path / "landmarks.slp"), open_videos=False)
    skeleton = labels.skeleton
    assert (skeleton.name, skeleton.node_names) == ("creature", ["left, eye", "right eye", "näse"])
    assert sorted(skeleton.edge_inds) == [(0, 1), (1, 2)]
    assert [set(pair.nodes) for pair in skeleton.symmetries] == [set(skeleton.nodes[:2])]
    assert [(video.filename, tuple(video.shape)) for video in labels.videos] == [
        (["plain.png", "none.png"], (2, 48, 64, 3)), ([ODD], (1, 480, 640, 3)), ([TWO], (1, 80, 100, 3)),
    ]  # fmt: skip
    frames = {frame.video.filename[frame.frame_idx]: frame.predicted_instances for frame in labels}
    assert {name: len(instances) for name, instances in frames.items()} == {
        "plain.png": 1, ODD: 1, TWO: 2, "none.png": 1,
    }  # fmt: skip
    read = [frames["plain.png"][0], frames[ODD][0], *frames[TWO], frames["none.png"][0]]
    for row, one in enumerate(read):
        np.testing.assert_allclose(one.points["xy"], expected(row), atol=0.01)
        assert one.points["visible"].tolist() == [flag == 2 for flag in FLAGS[row]]
        np.testing.assert_allclose(one.points["score"], ROWS[row][3], atol=1e-4)


def test_frames_of_videos_have_their_numbers(frames, tmp_path):
    sleap.write(frames, Folder.at(tmp_path))
    labels = sleap_io.load_slp(str(tmp_path / "landmarks.slp"), open_videos=False)
    assert [(frame.video.filename, frame.frame_idx) for frame in labels] == [
        ("day 1/clip.mp4", 3), ("day 1/clip.mp4", 7), ("other.avi", 0),
    ]  # fmt: skip
    np.testing.assert_allclose(labels[1].instances[0].numpy(), [[7.25, 2.5], [NAN, NAN], [30, 7]], atol=0.01)


def test_without_pictures_the_file_is_still_valid(empty, tmp_path):
    sleap.write(empty, Folder.at(tmp_path))
    assert len(sleap_io.load_slp(str(tmp_path / "landmarks.slp"))) == 0
