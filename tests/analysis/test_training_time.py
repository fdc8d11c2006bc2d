"""The time of a run follows from timed steps by its schedule."""

import pytest

from ray_kplm.analysis.training_time import time_training
from ray_kplm.config import load_config
from tests.made_images import objects


@pytest.fixture(scope="module")
def timed(small_config):
    images, boxes = objects(6, size=64)

    def run(*changes, train=48):
        return time_training(load_config(None, [*small_config, *changes]), images, list(boxes), train)

    return run


def test_the_parts_are_steps_times_the_schedule(timed):
    found = timed(
        "stage1.warmup_iterations=100", "stage1.rounds=3", "stage1.round_iterations=40", "stage2.iterations=70"
    )
    assert found.stage1 >= 220 * found.stage1_step > 0
    assert found.stage2 >= 70 * found.stage2_step > 0
    # The warm-up and three rounds each look at all 48 images.
    assert found.extraction == pytest.approx(4 * 48 * found.image)
    assert found.figures()["hours"] == pytest.approx(found.seconds / 3600)


def test_an_extraction_takes_no_more_images_than_the_configuration_says(timed):
    assert timed("round_images=10").extraction < timed(train=10_000).extraction
