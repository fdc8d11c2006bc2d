"""`kplm bench train` at a size of seconds."""

import pytest

from ray_kplm.bench import train as bench
from ray_kplm.config import AugmentConfig, load_config


@pytest.mark.slow
def test_training_is_timed_in_one_layout_after_another(ray_cluster, small_config, tmp_path):
    config = load_config(None, [*small_config, "compute.rounds_per_fit=20"])
    dataset = bench.rendered_dataset(str(tmp_path), 64)
    for piped in (False, True):  # the first layout's workers must end, or the second's find no CPUs
        layout = bench.Layout(2, piped)
        assert bench._rate(bench._with_workers(config, layout, str(tmp_path)), dataset, layout, 20) > 0


@pytest.mark.slow
def test_the_shares_of_the_data_pipelines_time_add_up_to_one(small_dataset):
    measured = bench.data_pipeline(AugmentConfig(warp=0.05), 64, small_dataset.images("train"))
    shares = [value for name, value in measured.items() if name.startswith("data_share")]
    assert sum(shares) == pytest.approx(1, abs=0.15)  # a share that comes out below zero is set to zero
    assert measured["decode_images_per_s_per_core"] > measured["data_images_per_s_per_core"] > 0
