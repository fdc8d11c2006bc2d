"""`kplm bench views` at a size of seconds."""

import pytest

from ray_kplm.bench import views
from ray_kplm.config import AugmentConfig
from ray_kplm.progress import ignore_progress


def test_figures_belong_together(monkeypatch):
    monkeypatch.setattr(views, "_MEASUREMENTS", 1)
    cases = (views.Case(64, warp=True), views.Case(48, warp=False, boxes=True))
    found = views.bench(AugmentConfig(), 8, ignore_progress, cases)
    assert [(row["side"], row["warp"], row["boxes"]) for row in found["cases"]] == [
        (64, True, False),
        (48, False, True),
    ]
    for row in found["cases"]:
        steps = row["microseconds"]
        assert 1e6 / row["views_per_s_per_core"] == pytest.approx(sum(steps.values()))
        assert row["decode_share"] == pytest.approx(steps["decode"] * row["views_per_s_per_core"] / 1e6)
        ratio = row["views_per_s_per_core"] / row["reference_views_per_s_per_core"]
        assert row["views_ratio_to_reference"] == pytest.approx(ratio)
    assert found["decode_share"] == found["cases"][0]["decode_share"]
    assert [line.split(",")[0] for line in views.lines(found)[1:3]] == ["64 px", "48 px"]
