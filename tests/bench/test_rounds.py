"""`kplm bench rounds` at a size of seconds."""

import pytest

from ray_kplm.bench import rounds
from ray_kplm.progress import ignore_progress


@pytest.mark.slow
def test_a_round_of_a_larger_dataset_reads_as_many_parts(ray_cluster):
    found = rounds.bench([1_500, 6_000], 1_000, ignore_progress)
    assert [row["parts_read"] for row in found["rounds"]] == [2, 2]
    assert found["time_ratio_largest_to_smallest"] == found["rounds"][1]["seconds"] / found["rounds"][0]["seconds"]
