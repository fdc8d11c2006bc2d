"""`kplm bench device-views` at a size of a second."""

import pytest

from ray_kplm.bench import device_views
from ray_kplm.progress import ignore_progress


def test_figures_of_a_device_are_consistent():
    found = device_views.bench("cpu", 48, 8, 4, ignore_progress)
    assert found["device"] == "cpu"
    assert found["device_views_per_s"] < found["device_copies_per_s"]
    assert found["overlap"] <= 1.1
    assert found["device_to_core"] * found["core_views_per_s"] == pytest.approx(found["device_views_per_s"])
