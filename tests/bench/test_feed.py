"""`kplm bench feed` at a size of seconds."""

import pytest

from ray_kplm.bench import feed
from ray_kplm.progress import ignore_progress


@pytest.mark.slow
def test_views_arrive_in_order_and_as_often_as_they_are_made(ray_cluster):
    found = feed.bench(tasks=3, size=16, batch=32, rate=300, seconds=2, progress=ignore_progress)
    assert found["possible_views_per_s"] == 900
    assert found["batches_out_of_order"] == 0
    assert 0 < found["feed_share"] <= 1
    assert found["feed_share"] == pytest.approx(found["views_per_s"] / found["possible_views_per_s"])
