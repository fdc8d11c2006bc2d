"""`kplm bench rounds` at a size of seconds."""

import pytest

from ray_kplm.bench import rounds
from ray_kplm.progress import ignore_progress


@pytest.mark.slow
def test_a_round_of_a_larger_dataset_reads_as_many_parts(ray_cluster):
    found = rounds.bench([1_500, 6_000], 1_000, [4_000, 16_000], 20, ignore_progress)
    assert [row["parts_read"] for row in found["rounds"]] == [2, 2]
    assert found["time_ratio_largest_to_smallest"] == found["rounds"][1]["seconds"] / found["rounds"][0]["seconds"]
    small, large = found["stage2"]
    assert small["part_requests"] == large["part_requests"] > 0
    assert min(large["driver_mib"], large["process_mib"]) > 0
    assert len(rounds.lines(found)) == 8
