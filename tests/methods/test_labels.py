"""Labels: from tables of pseudo-labels to points in views."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_kplm.imaging import coordinates
from ray_kplm.imaging.warp import IDENTITY_SHIFT
from ray_kplm.methods.batch import Views
from ray_kplm.methods.channels import Channels
from ray_kplm.methods.labels import Labels, cluster_labels, keypoint_labels, landmark_labels
from ray_kplm.schemas import KEYPOINTS, LABELS, NONE

CPU = torch.device("cpu")
IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def keypoint_table(*images: list) -> pa.Table:
    rows = [{"image_id": str(i), "xy": xy, "score": [1.0] * len(xy)} for i, xy in enumerate(images)]
    return pa.Table.from_pylist(rows, schema=KEYPOINTS)


def label_table(*images: list) -> pa.Table:
    """Points as (x, y, landmark, cluster, cluster_flipped)."""
    names = ("landmark", "cluster", "cluster_flipped")
    rows = [
        {"image_id": str(i), "xy": [p[:2] for p in points], "score": [1.0] * len(points)}
        | {name: [p[2 + n] for p in points] for n, name in enumerate(names)}
        for i, points in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


def views(labels, image, affine=IDENTITY, flip=False, shifts=IDENTITY_SHIFT, side=16):
    image = np.asarray(image)
    affines, flips = np.broadcast_to(affine, (len(image), 2, 3)), np.broadcast_to(flip, len(image))
    pictures = np.zeros((len(image), side * 4, side * 4, 3), np.uint8)
    points = labels.in_views(
        Views(pictures, image, flips, affines, np.broadcast_to(shifts, (len(image), *shifts.shape))), CPU
    )
    return points.xy, points.valid, points.identity


TABLES = [
    keypoint_table([[1, 2], [3, 4], [5, 6]], []),
    keypoint_table([], [[7, 8]]),
]


def test_a_keypoint_corresponds_to_itself():
    labels = keypoint_labels(TABLES)
    np.testing.assert_array_equal(labels.present.sum(1), [3, 0, 0, 1])
    np.testing.assert_array_equal(labels.identity[0], [0, 1, 2])
    np.testing.assert_array_equal(labels.identity[3], [0, NONE, NONE])
    np.testing.assert_array_equal(labels.identity_flipped, labels.identity)
    np.testing.assert_array_equal(labels.xy[0], [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(labels.xy[3], [[7, 8], [0, 0], [0, 0]])
    assert labels.xy.dtype == np.float32
    assert labels.identity.dtype == np.int32


def test_slices_and_chunks_of_a_table_give_the_same_labels():
    whole = pa.concat_tables(TABLES)
    for tables in ([whole], [whole.slice(0, 1), whole.slice(1, 3)], iter([whole.slice(0, 3), whole.slice(3)])):
        labels = keypoint_labels(tables)
        np.testing.assert_array_equal(labels.xy, keypoint_labels(TABLES).xy)
        np.testing.assert_array_equal(labels.present, keypoint_labels(TABLES).present)


@pytest.mark.parametrize("tables", [[], [keypoint_table()], [keypoint_table([], [])]])
def test_tables_without_points_give_no_labels(tables):
    labels = keypoint_labels(tables)
    assert len(labels.present) == sum(t.num_rows for t in tables)
    assert not labels.present.any()
    assert labels.usable(0 if not tables else 1).size == 0


def test_usable_images_have_two_points():
    labels = keypoint_labels([keypoint_table([[1, 2]], [[1, 2], [3, 4]], [], [[1, 2]] * 5)])
    np.testing.assert_array_equal(labels.usable(), [1, 3])
    np.testing.assert_array_equal(labels.usable(1), [0, 1, 3])
    np.testing.assert_array_equal(labels.usable(3), [3])


def test_points_without_a_cluster_are_left_out():
    table = label_table([(1, 1, 0, NONE, 4), (2, 2, 1, 7, 8), (3, 3, 2, 9, NONE)], [], [(4, 4, 0, NONE, NONE)])
    labels = cluster_labels([table])
    np.testing.assert_array_equal(labels.present, [[True, True], [False, False], [False, False]])
    np.testing.assert_array_equal(labels.xy[0], [[2, 2], [3, 3]])
    np.testing.assert_array_equal(labels.identity[0], [7, 9])
    np.testing.assert_array_equal(labels.identity_flipped[0], [8, NONE])
    np.testing.assert_array_equal(labels.usable(), [0])


def test_a_landmark_has_its_channels_column_and_its_partner_as_flipped_identity():
    table = label_table([(1, 1, 2, NONE, NONE), (2, 2, 0, 5, 5)], [], [(4, 4, 1, 1, 1)])
    labels = landmark_labels(
        [table.slice(0, 1), table.slice(1)], Channels.first(np.ones(3, bool), np.array([1, 0, 2], np.int16))
    )
    assert labels.present.tolist() == [[True, False, True], [False, False, False], [False, True, False]]
    np.testing.assert_array_equal(labels.identity, [[0, NONE, 2], [NONE] * 3, [NONE, 1, NONE]])
    np.testing.assert_array_equal(labels.identity_flipped, [[1, NONE, 2], [NONE] * 3, [NONE, 0, NONE]])
    np.testing.assert_array_equal(labels.xy[0], [[2, 2], [0, 0], [1, 1]])


def test_the_strongest_of_several_points_of_a_channel_is_kept():
    rows = [{"image_id": "0", "xy": [[1, 1], [2, 2], [3, 3], [4, 4]], "score": [0.2, 0.9, 0.5, 0.7]}]
    rows[0] |= {"landmark": [0, 1, 3, 2], "cluster": [0, 1, 3, 2], "cluster_flipped": [NONE] * 4}
    table = pa.Table.from_pylist(rows, schema=LABELS)
    channels = Channels(np.int16([0, 0, NONE, 1]), np.int16([1, 3]), np.int16([NONE, NONE]))
    labels = landmark_labels([table], channels)
    assert labels.present.tolist() == [[True, True]]
    np.testing.assert_array_equal(labels.xy[0], [[2, 2], [3, 3]])
    assert labels.identity.tolist() == [[0, 1]]
    assert labels.identity_flipped.tolist() == [[NONE, NONE]]


def test_points_move_with_the_view():
    affine = np.array([[0.5, 0.25, 8.0], [-0.25, 0.5, 16.0]], np.float32)
    labels = keypoint_labels([keypoint_table([[10, 20], [30, 7.5]], [[0, 0], [1, 1]])])
    xy, valid, _ = views(labels, [0, 0], np.stack([affine, IDENTITY]))
    # Closed form: 0.5 * 10 + 0.25 * 20 + 8 = 18 and -2.5 + 10 + 16 = 23.5, then (p - 1.5) / 4.
    np.testing.assert_allclose(xy[0, 0], [(18 - 1.5) / 4, (23.5 - 1.5) / 4])
    np.testing.assert_allclose(xy[0, 1], coordinates.input_to_heatmap(coordinates.apply(affine, np.array([30, 7.5]))))
    np.testing.assert_allclose(xy[1, 0], [(10 - 1.5) / 4, (20 - 1.5) / 4])
    assert valid.all()
    assert xy.dtype == torch.float32


def test_points_move_with_the_warp_of_the_view():
    labels = keypoint_labels([keypoint_table([[21, 31.5], [63, 0]])])
    shifts = np.zeros((4, 4, 2), np.float32)  # every 21 px of 64
    shifts[1, 1], shifts[2, 1] = (2, 4), (6, 0)
    xy, _, _ = views(labels, [0], shifts=shifts)
    np.testing.assert_allclose(
        xy[0], [[(21 + 4 - 1.5) / 4, (31.5 + 2 - 1.5) / 4], [(63 - 1.5) / 4, -1.5 / 4]], atol=1e-6
    )


def test_points_outside_the_view_are_not_valid_and_have_no_identity():
    # 16 cells cover input pixels -0.5 to 63.5.
    labels = keypoint_labels([keypoint_table([[0, 0], [63, 63], [-0.7, 30], [30, 63.7], [70, 20]])])
    _, valid, identity = views(labels, [0])
    assert valid.tolist() == [[True, True, False, False, False]]
    assert identity.tolist() == [[0, 1, NONE, NONE, NONE]]
    shift = np.array([[1, 0, -1.0], [0, 1, 0]], np.float32)
    assert views(labels, [0], shift)[1].tolist() == [[False, True, False, False, False]]


def test_a_mirrored_view_uses_the_flipped_identity():
    labels = cluster_labels([label_table([(20, 20, 0, 7, 8), (30, 30, 1, 9, NONE)], [(5, 5, 0, 3, 4)])])
    xy, valid, identity = views(labels, [0, 0, 1, 1], flip=np.array([False, True, False, True]))
    assert identity.tolist() == [[7, 9], [8, NONE], [3, NONE], [4, NONE]]
    assert identity.dtype == torch.int64
    assert valid.tolist() == [[True, True]] * 2 + [[True, False]] * 2
    torch.testing.assert_close(xy[0], xy[1])  # the map alone moves points


def test_points_have_landmarks_beside_clusters_if_a_flip_map_is_given():
    table = label_table([(20, 20, 0, NONE, 8), (30, 30, 1, 9, NONE)], [(5, 5, 2, 3, 4)])
    labels = cluster_labels([table], np.array([1, 0, NONE], np.int16))
    assert labels.present.sum() == 3  # with the landmark that has no cluster
    views_of = Views(
        np.zeros((3, 64, 64, 3), np.uint8), np.array([0, 0, 1]), np.array([False, True, True]),
        np.tile(IDENTITY, (3, 1, 1)), np.tile(IDENTITY_SHIFT, (3, 1, 1, 1)),
    )  # fmt: skip
    points = labels.in_views(views_of, CPU)
    assert points.identity.tolist() == [[NONE, 9], [8, NONE], [4, NONE]]
    assert points.landmark.tolist() == [[0, 1], [1, 0], [NONE, NONE]]
    assert cluster_labels([table]).in_views(views_of, CPU).landmark is None


def test_rows_of_labels_and_labels_of_several_parts_are_those_of_all():
    rng = np.random.default_rng(0)
    identity = rng.integers(0, 9, (6, 4)).astype(np.int32)
    whole = Labels(rng.random((6, 4, 2)).astype(np.float32), identity, identity + 1, rng.random((6, 4)) < 0.5)
    joined = Labels.joined([whole.rows(np.array([4, 0])), whole.rows(np.array([5]))])
    assert sorted(joined.arrays()) == ["identity", "identity_flipped", "present", "xy"]
    for name, array in joined.arrays().items():
        np.testing.assert_array_equal(array, getattr(whole, name)[[4, 0, 5]])
