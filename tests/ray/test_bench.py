"""The benchmarks at sizes that take seconds: their results are consistent and of the right magnitude."""

import json
import time

import pytest

from ray_kplm.bench import correspondence, rounds
from ray_kplm.bench import train as training
from ray_kplm.bench.kmeans_speed import Sizes
from ray_kplm.config import load_config
from ray_kplm.run import Run


def collector():
    """Return a progress callback, and the list of the shares with which it was called."""
    shares = []
    return (lambda share, text: shares.append(share)), shares


def test_correspondence_gives_consistent_times_and_ratios(ray_cluster):
    progress, shares = collector()
    found = correspondence.bench(Sizes(12_000, 32, 10, 3), memory=False, run=None, progress=progress)
    assert found["same_assignments"] is True
    assert found["objective_ratio_to_faiss"] == pytest.approx(1, abs=1e-3)
    assert found["time_ratio_to_faiss"] == pytest.approx(found["seconds_ours"] / found["seconds_faiss"])
    assert found["fit_vectors_per_core_s"] * found["seconds_ours"] * found["threads"] == pytest.approx(12_000 * (3 + 1))
    assert 0 < 3 * (found["seconds_ours"] + found["seconds_faiss"]) < found["seconds"]
    assert found["thesis_round_share"] == correspondence.thesis_share(found["fit_vectors_per_core_s"])
    assert 0 < found["thesis_round_share"] < 1
    for name in ("speedup_2_shards", "weak_scaling", "machine_2_processes", "gemm_share"):  # without a unit
        assert 0.01 < found[name] < 10, name
    for name in ("assigned_vectors_per_s", "filter_keypoints_per_s"):
        assert 1e4 < found[name] < 1e10, name
    json.dumps(found, allow_nan=False)
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_a_round_costs_far_less_than_in_proportion_to_the_dataset(ray_cluster):
    progress, shares = collector()
    found = rounds.bench([1_500, 30_000], 1_000, progress)
    small, large = found["rounds"]
    assert (small["parts_read"], large["parts_read"]) == (2, 2)
    ratio = found["time_ratio_largest_to_smallest"]
    assert ratio == pytest.approx(large["seconds"] / small["seconds"])
    assert 0.05 < ratio < 10  # the dataset is 20 times as large
    assert 0 < small["seconds"] + large["seconds"] < found["seconds"]
    assert 0 < large["draw_peak_kib"] < 1024
    assert shares == [0.0, 0.5, 1.0]
    assert [line.split()[:2] for line in rounds.lines(found)[1:3]] == [["1,500", "images"], ["30,000", "images"]]


def test_training_is_timed_in_layout_after_layout(ray_cluster, tmp_path):
    config = load_config(None, [
        "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
        "method.landmarks=4", "method.clusters=8", "stage1.batch_size=4", "compute.rounds_per_fit=20",
    ])  # fmt: skip
    dataset = training._dataset(str(tmp_path), 64)
    for piped in (False, True):  # the workers of the first must be gone, or there is no room for the second's
        layout, began = training.Layout(2, piped), time.monotonic()
        rate = training._rate(training._with_workers(config, layout, str(tmp_path)), dataset, layout, 20)
        assert 20 * 4 / (time.monotonic() - began) < rate < 1e5  # faster than with the start of the workers


def test_the_share_of_clustering_is_of_whole_rounds_without_the_warm_up(tmp_path):
    run = Run.start(load_config(None, [f"run={tmp_path}", "stage1.rounds=2"]))
    run.save()
    for number, train, extraction, clustering in ((0, 900, 90, 90), (1, 60, 20, 20), (2, 80, 15, 5)):
        folder = run.folder / "rounds" / f"{number:03d}"
        (folder / "train").write_json("manifest.json", {"seconds": train})
        (folder / "labels").write_json("manifest.json", {"seconds": clustering, "extraction_seconds": extraction})
    assert correspondence.run_share(str(tmp_path)) == 25 / 200
