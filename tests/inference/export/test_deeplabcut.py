"""Predicted landmarks as DeepLabCut's tables, read back as DeepLabCut reads them."""

import numpy as np
import pandas as pd
import pytest
import sleap_io

from ray_kplm.inference.export import deeplabcut
from ray_kplm.inference.export.predictions import Predictions
from ray_kplm.points.layout import Layout
from ray_kplm.storage import Folder
from tests.inference.export.cases import ODD, PARTNERS, ROWS, table

SINGLE = [ROWS[0], ROWS[1], ROWS[4]]


@pytest.fixture
def single():
    return Predictions(lambda: [table(SINGLE)], Layout.of("creature", PARTNERS))


def test_csv_and_hdf5_of_pictures_have_three_levels_and_the_same_values(single, tmp_path, tree):
    deeplabcut.write(single, Folder.at(tmp_path))
    assert tree() == ["dlc/landmarks.csv", "dlc/landmarks.h5"]
    of_csv = pd.read_csv(tmp_path / "dlc" / "landmarks.csv", header=[0, 1, 2], index_col=0)
    of_hdf = pd.read_hdf(tmp_path / "dlc" / "landmarks.h5")
    assert of_csv.index.tolist() == [
        f"labeled-data/{name}" for name in ("creature/plain.png", ODD, "creature/none.png")
    ]
    folder, _, name = ODD.partition("/")
    assert of_hdf.index.tolist()[1] == ("labeled-data", folder, name)
    for read in (of_csv, of_hdf):
        assert read.columns.names == ["scorer", "bodyparts", "coords"]
        for row, (_, xy, _, probability, _) in enumerate(SINGLE):
            of_row = read.iloc[row]["ray_kplm"]
            for landmark, bodypart in enumerate(single.layout.names):
                np.testing.assert_allclose(of_row[bodypart][["x", "y"]].to_numpy(float), xy[landmark], atol=0.01)
                assert of_row[bodypart]["likelihood"] == pytest.approx(probability[landmark], abs=1e-4)


def test_several_objects_of_a_picture_are_individuals(found, tmp_path):
    deeplabcut.write(found, Folder.at(tmp_path))
    read = pd.read_hdf(tmp_path / "dlc" / "landmarks.h5")
    assert read.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    assert pd.read_csv(tmp_path / "dlc" / "landmarks.csv", header=[0, 1, 2, 3], index_col=0).shape == (4, 2 * 3 * 3)
    two = read.loc[("labeled-data", "more/sub", "two.png")]["ray_kplm"]
    for individual, (_, xy, _, _, _) in zip(("individual1", "individual2"), ROWS[2:4], strict=True):
        for bodypart, point in zip(found.layout.names, xy, strict=True):
            np.testing.assert_allclose(two[individual][bodypart][["x", "y"]].to_numpy(float), point, atol=0.01)
    assert read.iloc[0]["ray_kplm"]["individual2"].isna().all()


def test_a_video_has_tables_of_its_own_with_numbers_of_frames(frames, tmp_path, tree):
    deeplabcut.write(frames, Folder.at(tmp_path))
    assert tree() == ["dlc/day 1_clip.csv", "dlc/day 1_clip.h5", "dlc/other.csv", "dlc/other.h5"]
    for read in (
        pd.read_csv(tmp_path / "dlc" / "day 1_clip.csv", header=[0, 1, 2], index_col=0),
        pd.read_hdf(tmp_path / "dlc" / "day 1_clip.h5"),
    ):
        assert read.index.tolist() == [3, 7]
        assert read["ray_kplm"]["landmark_0"]["x"].tolist() == [3.25, 7.25]
        assert read["ray_kplm"]["landmark_1"]["x"].isna().all()
        assert read["ray_kplm"]["landmark_2"]["likelihood"].tolist() == [0.25, 0.25]  # the confidence: no probability


def test_sleap_io_reads_the_csv(single, tmp_path):
    deeplabcut.write(single, Folder.at(tmp_path / "labeled-data"))
    for name in ("creature/plain.png", ODD, "creature/none.png"):
        path = tmp_path / "labeled-data" / "dlc" / "labeled-data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    labels = sleap_io.load_dlc(str(tmp_path / "labeled-data" / "dlc" / "landmarks.csv"))
    read = [one.numpy() for frame in labels for one in frame.instances]
    order = [labels.skeleton.node_names.index(name) for name in single.layout.names]
    np.testing.assert_allclose([one[order] for one in read], [ROWS[0][1], ROWS[1][1]], atol=0.01)


def test_without_pictures_there_is_no_table(empty, tmp_path, tree):
    assert deeplabcut.write(empty, Folder.at(tmp_path)) == []
    assert tree() == []
