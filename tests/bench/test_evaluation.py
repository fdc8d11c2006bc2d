"""`kplm bench evaluation` at a size that takes no time: its results are consistent."""

import time

from ray_kplm.bench.evaluation import bench


def test_complete_and_incomplete_annotation_are_measured():
    calls, began = [], time.process_time()
    found = bench(60, 6, 4, lambda share, text: calls.append((share, text)))
    elapsed = time.process_time() - began
    assert (found["test_images"], found["points"], found["landmarks"]) == (60, 6, 4)
    assert [share for share, _ in calls] == [0.0, 0.5, 1.0]
    seconds = [
        found[f"{what}_s_{state}"]
        for what in ("forward", "backward", "all_figures")
        for state in ("complete", "missing")
    ]
    assert min(seconds) > 0
    assert sum(seconds) < elapsed
    assert max(found["forward_s_missing"], found["backward_s_missing"]) < found["all_figures_s_missing"]
