"""Progress of a run: the callback that passes it on, and its display as a line on a terminal or lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_TERMINAL_INTERVAL_S, _LOG_INTERVAL_S = 0.2, 20.0
"""Between two updates of the line on a terminal, and between two lines in a log."""

ProgressCallback = Callable[[float, str], None]
"""Called while work goes on with the share that is done, 0 to 1, and a text about what is being done, which may be empty."""


def ignore_progress(share: float, text: str) -> None:
    """Do nothing: a `ProgressCallback` for callers that show no progress."""


def part_of(progress: ProgressCallback, first: float, last: float) -> ProgressCallback:
    """Return the callback of a part of the work, which goes from the share `first` to the share `last` of the whole."""
    return lambda share, text: progress(first + (last - first) * share, text)


class ProgressDisplay:
    """Displays the progress of a run made of steps: share done, step, loss, points an image and time left.

    The time left is the sum of two estimates. Every step needs a while to start its processes, which can take as long as the
    work of a short step: each step to come is expected to start as fast as those so far on average. The remaining work is
    expected at the pace of this process so far; steps that a resumed run skips do not count for the pace.

    Safe for use by several threads.
    """

    def __init__(
        self, weights: dict[str, float], out: TextIO | None = None, callback: ProgressCallback | None = None
    ) -> None:
        """Display nothing yet.

        Args:
            weights: the expected cost of each step by its path, in any one unit.
            out: where lines are written, by default standard error.
            callback: gets the lines instead of `out`.
        """
        self._weights, self._callback = weights, callback
        self._out = out or sys.stderr
        self._is_terminal = callback is None and self._out.isatty()
        self._lock = threading.Lock()
        self._finished: set[str] = set()
        self._step, self._title, self._share, self._text = "", "", 0.0, ""
        self._points_per_image: float | None = None
        self._start_times: list[float] = []  # seconds from the begin of each step to its first progress
        self._work, self._work_s = 0.0, 0.0  # weight done after the first progress of steps, and seconds for it
        self._last_update, self._last_share = 0.0, 0.0  # of the current step
        self._last_line = 0.0

    def begin(self, step: str, title: str) -> None:
        """Begin a step.

        Args:
            step: its path, a key of the weights.
            title: its name in the display.
        """
        with self._lock:
            self._step, self._title, self._share, self._text = step, title, 0.0, ""
            self._last_update, self._last_share = time.monotonic(), 0.0
            self._show(force=True)

    def advance(self, share: float, text: str = "") -> None:
        """Display that this share of the current step is done, a `ProgressCallback`."""
        with self._lock:
            self._measure(share)
            self._text = text
            self._show()

    def set_points_per_image(self, points: float) -> None:
        """Set the number of points an image that is displayed from now on."""
        self._points_per_image = points

    def finish(self, text: str = "") -> None:
        """Finish the current step."""
        with self._lock:
            self._measure(1.0)
            self._finished.add(self._step)
            self._share, self._text = 1.0, text
            self._show(force=True, end=True)
            self._share, self._step = 0.0, ""

    def skip(self, step: str) -> None:
        """Count a step as done that was finished before this process began."""
        self._finished.add(step)

    def print_line(self, text: str) -> None:
        """Print a line that stays on the terminal."""
        with self._lock:
            self._write(text, end=True)

    def _measure(self, share: float) -> None:
        """Update the start times and the pace: the current step has reached this share."""
        now = time.monotonic()
        if self._last_share == 0.0 and share > 0.0:
            self._start_times.append(now - self._last_update)
        elif share > self._last_share:
            self._work += self._weights.get(self._step, 0.0) * (share - self._last_share)
            self._work_s += now - self._last_update
        if share > self._last_share:
            self._last_update, self._last_share = now, share
        self._share = share

    def _total_share(self) -> float:
        """Return the share of the total weight that is done, at most 1."""
        total = sum(self._weights.values()) or 1.0
        current = self._weights.get(self._step, 0.0) * self._share if self._step not in self._finished else 0.0
        return min((sum(self._weights.get(step, 0.0) for step in self._finished) + current) / total, 1.0)

    def _seconds_left(self) -> float | None:
        """Return the estimated time for the remaining steps, None while there is no pace to estimate it from."""
        weight = (1 - self._total_share()) * sum(self._weights.values())
        if not self._work or not weight:
            return None
        started = {self._step} if self._share else set()
        steps_to_start = len(self._weights.keys() - self._finished - started)
        mean_start = sum(self._start_times) / len(self._start_times)
        return steps_to_start * mean_start + weight * self._work_s / self._work

    def _show(self, *, force: bool = False, end: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last_line < (_TERMINAL_INTERVAL_S if self._is_terminal else _LOG_INTERVAL_S):
            return
        self._last_line = now
        pieces = [f"[{self._total_share():4.0%}] {self._title}"]
        if self._text:
            pieces.append(self._text)
        if self._points_per_image is not None:
            pieces.append(f"{self._points_per_image:.1f} points/image")
        seconds = self._seconds_left()
        if seconds is not None:
            pieces.append(f"{format_duration(seconds)} left")
        self._write(" · ".join(pieces), end=end or not self._is_terminal)

    def _write(self, line: str, *, end: bool) -> None:
        if self._callback:
            self._callback(self._total_share(), line)
            return
        start = "\r\x1b[K" if self._is_terminal else ""
        self._out.write(f"{start}{line}" + ("\n" if end else ""))
        self._out.flush()


def format_duration(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
