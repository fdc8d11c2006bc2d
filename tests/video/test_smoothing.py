"""The One Euro filter against what a low-pass of first order does to steps, sines and noise, and the measure of jitter."""

import math

import numpy as np
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.video.smoothing import MAX_GAP_S, Jitter, OneEuro, SmoothOptions

RATE, SIDE = 100.0, 100.0
FOUND = np.array([True])


def run(signal: np.ndarray, options: SmoothOptions, times: np.ndarray | None = None) -> np.ndarray:
    """Filter one landmark (T, 2)."""
    smooth = OneEuro(options, SIDE)
    times = np.arange(len(signal)) / RATE if times is None else times
    return np.stack([smooth(time, point[None], FOUND)[0] for time, point in zip(times, signal, strict=True)])


def low_pass(cutoff: float) -> SmoothOptions:
    """Without beta the filter is a low-pass."""
    return SmoothOptions("one-euro", cutoff, 0.0)


def test_a_step_is_approached_exponentially():
    """After the time constant 1 / (2 pi f) of an exponential approach 63 % of a step are done."""
    step = np.repeat([[0.0, 0.0], [10.0, -20.0]], [1, 60], axis=0)
    found = run(step, low_pass(1.0))
    after = round(RATE / (2 * math.pi))
    np.testing.assert_allclose(found[after] / [10, -20], 1 - math.exp(-1), atol=0.03)
    share = (2 * math.pi / RATE) / (2 * math.pi / RATE + 1)
    np.testing.assert_allclose(found[1], [10 * share, -20 * share])


def test_a_sine_at_the_cutoff_has_its_amplitude_over_the_square_root_of_two():
    time = np.arange(4000) / RATE
    sine = np.stack([np.sin(2 * math.pi * time), np.zeros_like(time)], axis=1)
    found = run(sine, low_pass(1.0))[2000:, 0]
    assert found.max() == pytest.approx(1 / math.sqrt(2), rel=0.05)
    low = np.stack([np.sin(2 * math.pi * 0.05 * time), np.zeros_like(time)], axis=1)
    assert run(low, low_pass(1.0))[2000:, 0].max() == pytest.approx(1, rel=0.01)


def test_noise_at_rest_is_damped_and_a_fast_way_does_not_lag():
    rng = np.random.default_rng(0)
    rest = 50 + rng.normal(0, 0.3, (500, 2))
    options = SmoothOptions("one-euro", 1.0, 20.0)
    assert run(rest, options)[100:].std() < 0.6 * rest[100:].std()
    way = np.stack([np.arange(200) * 1.0, np.zeros(200)], axis=1)  # a side of the picture in a second
    lag, lag_without = ((way - run(way, of))[-1, 0] for of in (options, low_pass(1.0)))
    assert lag < 0.01 * SIDE
    assert lag_without == pytest.approx(SIDE / (2 * math.pi), rel=0.1)  # speed times the time constant


def test_a_turned_signal_has_a_turned_result():
    rng = np.random.default_rng(1)
    signal = np.cumsum(rng.normal(size=(50, 2)), axis=0)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    options = SmoothOptions("one-euro")
    np.testing.assert_allclose(run(signal @ turn.T, options), run(signal, options) @ turn.T, atol=1e-9)


def test_times_count_and_not_frames():
    """Of a signal that stands still after a step, a frame after 0.1 s is as near as ten frames of 0.01 s are, nearly."""
    step = np.array([[0.0, 0.0], [1.0, 1.0]])
    once = run(step, low_pass(0.5), np.array([0.0, 0.1]))[-1]
    often = run(np.repeat(step, [1, 10], axis=0), low_pass(0.5))[-1]
    np.testing.assert_allclose(once, often, atol=0.04)


def test_what_is_not_found_stays_and_long_gaps_begin_anew():
    smooth = OneEuro(low_pass(1.0), SIDE)
    nowhere = np.array([[np.nan, np.nan]])
    smooth(0.0, np.zeros((1, 2)), FOUND)
    assert np.isnan(smooth(0.1, nowhere, FOUND)).all()
    guess = np.array([[70.0, 70.0]])
    np.testing.assert_array_equal(smooth(0.2, guess, ~FOUND), guess)
    held = smooth(0.3, np.full((1, 2), 10.0), FOUND)
    assert 0 < held[0, 0] < 10  # the filter waited, and the guess did not enter it
    anew = smooth(0.3 + MAX_GAP_S + 0.1, np.full((1, 2), 90.0), FOUND)
    np.testing.assert_array_equal(anew, 90)


def test_one_landmark_does_not_touch_another():
    smooth = OneEuro(SmoothOptions("one-euro"), SIDE)
    smooth(0.0, np.zeros((2, 2)), np.array([True, True]))
    found = smooth(0.04, np.array([[0.0, 0.0], [30.0, 0.0]]), np.array([True, True]))
    np.testing.assert_array_equal(found[0], 0)
    assert 0 < found[1, 0] < 30


@pytest.mark.parametrize("options", [{"min_cutoff": 0.0}, {"beta": -1.0}, {"derivative_cutoff": math.nan}])
def test_parameters_out_of_range_are_one_line(options):
    with pytest.raises(ConfigError, match=f"smooth: {next(iter(options))}"):
        SmoothOptions("one-euro", **options)


def test_even_motion_has_no_jitter_and_noise_has_the_known_one():
    even, rng = Jitter(), np.random.default_rng(0)
    noisy, corners = Jitter(), np.array([[0.0, 0.0], [40.0, 30.0]])
    for frame in range(4000):
        moved = corners + np.array([3, -2]) * frame
        even.add(0, frame, moved, np.array([True, True]))
        noisy.add(0, frame, moved + rng.normal(0, 0.5, (2, 2)), np.array([True, True]))
    assert even.pixels == pytest.approx(0, abs=1e-9)
    assert noisy.pixels == pytest.approx(0.5 * math.sqrt(6 * math.pi / 2), rel=0.03)
    assert noisy.of_size == pytest.approx(noisy.pixels / 40, rel=0.03)


def test_jitter_takes_three_successive_frames_in_which_a_landmark_is_found():
    jitter = Jitter()
    for frame, is_found in ((0, True), (1, False), (2, True), (4, True), (5, True)):
        jitter.add(0, frame, np.array([[10.0 * frame**2, 0.0]]), np.array([is_found]))
    assert jitter.pixels is None
    assert jitter.of_size is None
    jitter.add(1, 6, np.zeros((1, 2)), FOUND)  # of another object
    assert jitter.pixels is None
    jitter.add(0, 6, np.array([[360.0, 0.0]]), FOUND)
    assert jitter.pixels == pytest.approx(20)  # 160, 250, 360
