"""The grid of an ablation: what varies, where the runs go, and the table."""

import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import ConfigError
from ray_kplm.experiments.ablation import AXES, THESIS, averaged, configured, curve, grid, run_name, table_lines

CONFIG = load_config(None, ["dataset=d", "run=runs/a"])


def test_all_combinations_with_each_seed():
    cells = grid(["negatives", "method.landmarks=10,20"], [0, 1])
    assert len(cells) == 8
    assert cells[0] == {"negatives": "same_image", "method.landmarks": "10", "seed": 0}
    assert len({run_name(cell) for cell in cells}) == 8


def test_an_unknown_axis_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="--over colour: no such axis; known are kind, stages"):
        grid(["colour"], [0])


@pytest.mark.parametrize("name", AXES)
def test_every_axis_is_one_value_of_the_configuration(name):
    for cell in grid([name], [3]):
        made = configured(CONFIG, cell)
        assert made.flat()[AXES[name].path] == cell[name]
        assert made.seed == 3
        assert made.run == f"runs/a/{name}={cell[name]},seed=3"
        changed = {path for path, value in made.flat().items() if value != CONFIG.flat()[path]} - {"run", "seed"}
        assert changed <= {AXES[name].path, "keypoints.detector"}


def test_noise_needs_the_mixture():
    assert configured(CONFIG, {"noise": 0.2, "seed": 0}).keypoints.detector == "noisy_gt"


def test_the_thesis_tables_are_of_values_that_the_axes_have():
    for cell in THESIS:
        for name, value in cell:
            assert value in AXES[name].values


def test_means_over_seeds_and_what_failed():
    row = {"stage1_forward_nme": 10.0, "stage1_backward_nme": None, "thesis": None}
    rows = [
        {"cell": {"norm": "group", "seed": 0}, "forward_nme": 4.0, "backward_nme": 6.0, **row},
        {"cell": {"norm": "group", "seed": 1}, "forward_nme": 6.0, "backward_nme": 6.0, **row},
        {"cell": {"norm": "batch", "seed": 0}, "error": "the loss is nan", "thesis": None},
    ]
    group, batch = averaged(rows)
    assert group["name"] == "norm=group"
    assert group["seeds"] == 2
    assert group["forward_nme"] == (5.0, pytest.approx(2**0.5))
    assert group["stage1_backward_nme"] is None
    assert batch["seeds"] == 0
    assert batch["forward_nme"] is None
    assert batch["errors"] == ["the loss is nan"]


def test_a_spread_is_shown_of_several_seeds_only():
    row = {"stage1_forward_nme": None, "stage1_backward_nme": None, "backward_nme": 6.0}
    thesis = THESIS[frozenset({("clusters", 30)})]
    rows = [
        {"cell": {"clusters": 30, "seed": 0}, "forward_nme": 4.0, **row, "thesis": thesis},
        {"cell": {"clusters": 30, "seed": 1}, "forward_nme": 6.0, **row, "thesis": thesis},
        {"cell": {"clusters": 50, "seed": 0}, "forward_nme": 3.0, **row, "thesis": None},
        {"cell": {"clusters": 50, "seed": 1}, "error": "the loss is nan", "thesis": None},
    ]
    title, thirty, fifty, failed = table_lines(rows)
    assert title.split() == ["stage", "1", "backward", "stage", "2", "backward", "thesis"]
    assert thirty == f"clusters=30        -         -  5.00 ± 1.41  6.00 ± 0.00  10.26 / 9.41 ({thesis.source})"
    assert fifty == "clusters=50        -         -         3.00         6.00"
    assert failed.strip() == "failed: the loss is nan"


def test_a_curve_is_drawn_over_one_number_also_where_runs_failed():
    def row(cell, **figures):
        return {"cell": cell, "thesis": None, **(figures or {"error": "too few points"})}

    scores = {"forward_nme": 6.0, "backward_nme": 7.0, "mean_shape_nme": 20.0}
    rows = [row({"noise": share, "seed": 0}, **scores) for share in (0.2, 1.0)] + [row({"noise": 0.0, "seed": 0})]
    assert curve(rows)[:4] == b"\x89PNG"
    assert curve([row({"norm": "group", "seed": 0}, **scores), row({"norm": "batch", "seed": 0}, **scores)]) is None
    assert curve([row({"flip_at_test": value, "seed": 0}, **scores) for value in (False, True)]) is None
    assert curve(rows[:1]) is None
