"""`kplm bench train` at a size of seconds."""

import pytest

from ray_kplm.bench import train as bench
from ray_kplm.config import load_config


@pytest.mark.slow
def test_training_is_timed_in_one_layout_after_another(ray_cluster, small_config, tmp_path):
    config = load_config(None, [*small_config, "compute.rounds_per_fit=20"])
    dataset = bench.rendered_dataset(str(tmp_path), 64)
    for piped in (False, True):  # the first layout's workers must end, or the second's find no CPUs
        layout = bench.Layout(2, piped)
        assert bench._rate(bench._with_workers(config, layout, str(tmp_path)), dataset, layout, 20) > 0
