"""`kplm bench step` at a small size."""

import pytest

from ray_kplm.bench.step import Sizes, bench, lines, sizes_for
from ray_kplm.errors import ConfigError


def test_steps_are_timed_against_the_matrix_product_of_their_type(monkeypatch):
    monkeypatch.setattr("ray_kplm.bench.step._STEPS", 3)
    monkeypatch.setattr("ray_kplm.bench.step._WARM", 1)
    shown = []
    sizes = Sizes(image=128, width=16, batches=(2, 4), precisions=("fp32",), compile=("no",))
    figures = bench("cpu", sizes, lambda share, text: shown.append(share))
    assert [(row["batch"], row["compiled"]) for row in figures["steps"]] == [(2, False), (4, False)]
    for row in figures["steps"]:
        achieved = row["views_per_s"] * figures["gflop_per_view"] / 1e3
        assert row["peak_share"] == pytest.approx(achieved / figures["peak_tflops"]["fp32"])
    assert figures["best_peak_share"] == max(row["peak_share"] for row in figures["steps"])
    assert shown == sorted(shown)
    assert shown[-1] == 1.0
    assert [line.split()[:2] for line in lines(figures)[-2:]] == [["fp32", "2"], ["fp32", "4"]]


def test_a_step_without_room_has_no_figures():
    row = {
        "precision": "bf16",
        "batch": 256,
        "compile": "no",
        "compiled": False,
        "views_per_s": None,
        "peak_share": None,
    }
    figures = {"steps": [row], "peak_tflops": {"bf16": 700.0}, "image_size": 256, "width": 256, "device": "a GPU",
               "gflop_per_view": 90.0}  # fmt: skip
    assert lines(figures)[-1].split() == ["bf16", "256", "no", "no", "room"]


def test_views_come_in_pairs():
    with pytest.raises(ConfigError, match="--batches 5: views come in pairs"):
        sizes_for("cpu", None, None, [4, 5], ["fp32"], None)
    small = sizes_for("cpu", None, None, None, ["fp32", "bf16"], None)
    assert small == Sizes(128, 32, (8,), ["fp32", "bf16"], ("no",))
