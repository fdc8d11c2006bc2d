"""The measurements of `kplm bench`, at sizes where they take seconds: that they measure, not what."""

import json

from ray_kplm.bench import correspondence, rounds


def test_correspondence(ray_cluster):
    said = []
    found = correspondence.bench(correspondence.Sizes(12_000, 32, 10, 3), memory=False, run=None, say=said.append)
    assert found["same_assignments"] is True
    assert abs(found["objective_ratio_to_faiss"] - 1) < 1e-3
    for name in ("time_ratio_to_faiss", "speedup_2_shards", "weak_scaling", "gemm_share", "assigned_vectors_per_s",
                 "filter_keypoints_per_s", "thesis_round_share", "seconds"):  # fmt: skip
        assert found[name] > 0, name
    json.dumps(found, allow_nan=False)
    assert len(said) >= 4


def test_rounds(ray_cluster):
    found = rounds.bench([1_500, 6_000], 1_000, lambda text: None)
    assert [row["parts_read"] for row in found["rounds"]] == [2, 2]
    assert found["time_ratio_largest_to_smallest"] > 0
