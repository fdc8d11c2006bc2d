"""The measurements of `kplm bench`, at sizes where they take seconds: that they measure, not what."""

import json

from ray_kplm.bench import correspondence, rounds
from ray_kplm.bench import train as training
from ray_kplm.config import load
from ray_kplm.run import Run


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


def test_training_is_timed_in_layout_after_layout(ray_cluster, tmp_path):
    config = load(None, [
        "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
        "method.landmarks=4", "method.clusters=8", "stage1.batch_size=4", "compute.rounds_per_fit=20",
    ])  # fmt: skip
    dataset = training._dataset(str(tmp_path), 64)
    for piped in (False, True):  # the workers of the first must be gone, or there is no room for the second's
        layout = training.Layout(2, piped)
        assert training._rate(training._with_workers(config, layout, str(tmp_path)), dataset, layout, 20) > 0


def test_the_share_of_clustering_is_of_whole_rounds_without_the_warm_up(tmp_path):
    run = Run.start(load(None, [f"run={tmp_path}", "stage1.rounds=2"]))
    run.save()
    for number, train, extraction, clustering in ((0, 900, 90, 90), (1, 60, 20, 20), (2, 80, 15, 5)):
        folder = run.folder / "rounds" / f"{number:03d}"
        (folder / "train").write_json("manifest.json", {"seconds": train})
        (folder / "labels").write_json("manifest.json", {"seconds": clustering, "extraction_seconds": extraction})
    assert correspondence.run_share(str(tmp_path)) == 25 / 200
