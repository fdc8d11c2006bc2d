"""Predicted landmarks as NWB, read back by pynwb with ndx-pose."""

import dataclasses

import numpy as np
import pyarrow as pa
import pynwb
from ndx_pose import PoseEstimation
from pynwb import NWBHDF5IO

from ray_kplm.inference.export import nwb
from ray_kplm.storage import Folder
from tests.inference.export.cases import FLAGS, NAN, ODD, ROWS, TWO


def read(path) -> tuple[dict, dict]:
    """Return facts of a file, and the name of estimates -> the times (N,), points (N, K, 2) and confidences (N, K)."""
    assert not pynwb.validate(path=str(path))
    with NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
        file = io.read()
        behavior = file.processing["behavior"]
        (skeleton,) = behavior["Skeletons"].skeletons.values()
        facts = {"identifier": file.identifier, "start": file.session_start_time.isoformat()}
        facts |= {"nodes": list(skeleton.nodes[:]), "edges": skeleton.edges[:].tolist()}
        if "pictures_table" in behavior.data_interfaces:
            facts["pictures"] = behavior["pictures_table"].to_dataframe().values.tolist()
        estimates = {}
        for name, one in behavior.data_interfaces.items():
            if isinstance(one, PoseEstimation):
                assert one.skeleton is skeleton
                series = [one[node] for node in facts["nodes"]]
                facts["software"] = (one.source_software, one.source_software_version)
                facts["frame"] = series[0].reference_frame
                data, sure = (np.stack([getattr(s, key)[:] for s in series], 1) for key in ("data", "confidence"))
                estimates[name] = (series[0].timestamps[:].tolist(), data, sure)
        return facts, estimates


def expected(row: int) -> np.ndarray:
    """(3, 2), with absent landmarks NaN."""
    return np.where(np.array(FLAGS[row])[:, None] > 0, np.array(ROWS[row][1]), NAN)


def test_pynwb_reads_every_landmark(found, tmp_path):
    assert nwb.write(found, Folder.at(tmp_path)) == []
    facts, estimates = read(tmp_path / "landmarks.nwb")
    assert facts["pictures"] == [["plain.png", 64, 48], [ODD, 640, 480], [TWO, 100, 80], ["none.png", 64, 48]]
    assert facts["nodes"] == ["left, eye", "right eye", "n\xe4se"]
    assert sorted(facts["edges"]) == [[0, 1], [1, 2]]
    assert (facts["start"], facts["identifier"]) == ("2026-11-30T08:00:00+00:00", "ray_kplm 0123456789abcdef0123")
    assert facts["software"] == ("ray_kplm", "1.2.3")
    assert "centre of the top left pixel" in facts["frame"]
    assert list(estimates) == ["pictures", "pictures_object1"]
    times, xy, likely = estimates["pictures"]
    assert times == [0, 1, 2, 3]
    np.testing.assert_allclose(xy, [expected(row) for row in (0, 1, 2, 4)], atol=0.01)
    np.testing.assert_allclose(likely, [ROWS[row][3] for row in (0, 1, 2, 4)], atol=1e-4)
    _, xy, likely = estimates["pictures_object1"]
    np.testing.assert_allclose(xy[2], expected(3), atol=0.01)
    assert np.isnan(xy[[0, 1, 3]]).all()
    assert not likely[[0, 1, 3]].any()


def test_videos_have_the_times_of_their_frames_or_else_their_numbers(frames, tmp_path):
    nwb.write(frames, Folder.at(tmp_path))
    facts, estimates = read(tmp_path / "landmarks.nwb")
    assert "pictures" not in facts
    times, xy, _ = estimates["day 1_clip"]
    assert times == [3, 7]
    np.testing.assert_allclose(xy[1], [[7.25, 2.5], [NAN, NAN], [30, 7]], atol=0.01)
    assert estimates["other"][0] == [0]
    (table,) = frames.tables()
    position = table.schema.get_field_index("time")
    column = pa.array([0.1001, 0.2336, 0.0], pa.float64())
    timed = table.append_column("time", column) if position < 0 else table.set_column(position, "time", column)
    nwb.write(dataclasses.replace(frames, tables=lambda: [timed]), Folder.at(tmp_path / "timed"))
    assert read(tmp_path / "timed" / "landmarks.nwb")[1]["day 1_clip"][0] == [0.1001, 0.2336]


def test_without_pictures_the_file_is_still_valid(empty, tmp_path):
    nwb.write(empty, Folder.at(tmp_path))
    assert read(tmp_path / "landmarks.nwb")[1] == {}


def test_names_that_are_the_same_in_nwb_are_told_apart(found, tmp_path):
    layout = dataclasses.replace(found.layout, names=("a/b", "a:b", "a_b"))
    nwb.write(dataclasses.replace(found, layout=layout), Folder.at(tmp_path))
    with NWBHDF5IO(str(tmp_path / "landmarks.nwb"), "r", load_namespaces=True) as io:
        series = io.read().processing["behavior"]["pictures"].pose_estimation_series
        assert {one.name: one.description for one in series.values()} == {
            "a_b": "Landmark a/b.",
            "a_b_2": "Landmark a:b.",
            "a_b_3": "Landmark a_b.",
        }
