"""`kplm bench correspondence` at a size of seconds: whether it measures, not how fast this machine is."""

import json

import pytest

from ray_kplm.bench import correspondence
from ray_kplm.bench.kmeans_speed import against_faiss, on_device, write_features
from ray_kplm.config import load_config
from ray_kplm.run import Run
from ray_kplm.storage import Folder


def test_a_device_gives_the_bits_of_the_cpu(tmp_path):
    sizes = correspondence.Sizes(6_000, 32, 10, 3)
    write_features(Folder.at(tmp_path), sizes.points, sizes.dim)
    found = on_device(Folder.at(tmp_path), sizes, "cpu")
    assert found["device_has_same_bits"] is True
    assert found["device_seconds"] > 0
    ratio = against_faiss(Folder.at(tmp_path), sizes)
    assert abs(ratio["objective_ratio_to_faiss"] - 1) < 1e-3


@pytest.mark.slow
def test_every_figure_of_clustering_is_measured(ray_cluster):
    texts = []
    sizes = correspondence.Sizes(12_000, 32, 10, 3)
    found = correspondence.bench(sizes, memory=False, run=None, progress=lambda share, text: texts.append(text))
    assert found["same_assignments"] is True
    assert abs(found["objective_ratio_to_faiss"] - 1) < 1e-3
    for name in ("time_ratio_to_faiss", "speedup_2_shards", "weak_scaling", "gemm_share", "assigned_vectors_per_s",
                 "filter_keypoints_per_s", "thesis_round_share", "seconds"):  # fmt: skip
        assert found[name] > 0, name
    json.dumps(found, allow_nan=False)
    assert len(texts) >= 4


def test_the_share_of_clustering_is_of_whole_rounds_without_the_warm_up(tmp_path):
    run = Run.start(load_config(None, [f"run={tmp_path}", "stage1.rounds=2"]))
    run.save()
    for number, train, extraction, clustering in ((0, 900, 90, 90), (1, 60, 20, 20), (2, 80, 15, 5)):
        folder = run.folder / "rounds" / f"{number:03d}"
        step = {"fingerprint": "f", "reads": {}, "inputs": {}}
        (folder / "train").write_json("manifest.json", {**step, "seconds": train})
        facts = {"seconds": clustering, "extraction_seconds": extraction}
        (folder / "labels").write_json("manifest.json", {**step, **facts})
    assert correspondence.run_share(str(tmp_path)) == 25 / 200
