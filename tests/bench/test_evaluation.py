"""`kplm bench evaluation` at a size that takes no time: that it measures, not what."""

from ray_kplm.bench.evaluation import bench


def test_it_measures_complete_and_incomplete_annotation():
    said = []
    found = bench(60, 6, 4, lambda share, text: said.append(text))
    assert (found["test_images"], found["points"], found["landmarks"]) == (60, 6, 4)
    assert len(said) == 2
    for what in ("forward", "backward", "all_figures"):
        for state in ("complete", "missing"):
            assert found[f"{what}_s_{state}"] > 0
