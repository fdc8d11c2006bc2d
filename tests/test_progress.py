"""The progress display: share done, step, iteration, loss, points and time left."""

import io

import pytest

from ray_kplm import progress
from ray_kplm.progress import ProgressDisplay, format_duration


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    moment = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: moment[0])
    return moment


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_has_share_title_text_points_and_time_left(now):
    out = io.StringIO()
    shown = ProgressDisplay({"a": 100.0, "b": 300.0}, out)
    shown.begin("a", "warm-up")
    now[0] += 20
    shown.set_points_per_image(8.46)
    shown.advance(0.25, "iteration 2/10 · loss 0.2000")
    now[0] += 30
    shown.advance(0.5, "iteration 5/10 · loss 0.1000")
    line = out.getvalue().splitlines()[-1]
    # 350 of weight at 25 in 30 s, and the start of b as long as that of a.
    assert line == "[ 12%] warm-up · iteration 5/10 · loss 0.1000 · 8.5 points/image · 7:20 left"


def test_the_start_of_a_step_does_not_count_for_the_pace(now):
    out = io.StringIO()
    shown = ProgressDisplay({"a": 100.0}, out)
    shown.begin("a", "warm-up")
    now[0] += 60
    shown.advance(0.01)
    assert "left" not in out.getvalue()
    now[0] += 30
    shown.advance(0.51)
    assert out.getvalue().splitlines()[-1] == "[ 51%] warm-up · 0:29 left"


def test_skipped_steps_count_as_done_but_not_for_the_pace(now):
    out = io.StringIO()
    shown = ProgressDisplay({"a": 300.0, "b": 100.0}, out)
    shown.skip("a")
    shown.begin("b", "stage 2")
    now[0] += 5
    shown.advance(0.25)
    now[0] += 30
    shown.advance(0.5)
    assert out.getvalue().splitlines()[-1] == "[ 88%] stage 2 · 1:00 left"
    now[0] += 60
    shown.finish("loss 0.01")
    assert out.getvalue().splitlines()[-1] == "[100%] stage 2 · loss 0.01"


def test_a_log_gets_few_lines_and_no_control_codes(now):
    out = io.StringIO()
    shown = ProgressDisplay({"a": 1.0}, out)
    shown.begin("a", "warm-up")
    for _ in range(100):
        now[0] += 1
        shown.advance(0.3)
    assert 4 <= len(out.getvalue().splitlines()) <= 7
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()


def test_a_terminal_gets_one_moving_line(now):
    out = Terminal()
    shown = ProgressDisplay({"a": 1.0}, out)
    shown.begin("a", "warm-up")
    for _ in range(10):
        now[0] += 1
        shown.advance(0.3)
    assert out.getvalue().count("\r") == 11
    assert "\n" not in out.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_a_duration_is_formatted_as_a_clock(seconds, text):
    assert format_duration(seconds) == text
