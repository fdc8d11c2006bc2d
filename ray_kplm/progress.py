"""What a person sees while a run works: one line that moves on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_LOG_EVERY_S = 20.0

ProgressCallback = Callable[[float, str], None]
"""Called as work goes on: the share that is done, 0 to 1, and what is being done, "" where there is nothing to say."""


def ignore_progress(share: float, text: str) -> None:
    """Do nothing: a `ProgressCallback` for callers that show no progress."""


def part_of(progress: ProgressCallback, first: float, last: float) -> ProgressCallback:
    """Return the callback of a part of the work, which goes from the share `first` to the share `last` of the whole."""
    return lambda share, text: progress(first + (last - first) * share, text)


class Progress:
    """The progress of a run made of steps of known weight; tells stage, round, loss, points an image and the time left.

    Steps start processes before they work, which can take as long as a short step's work. So the time left is that of the
    starts to come, as long as those so far, and that of the weight to come, at the pace so far; of this process only, so that
    a resumed run is not flattered by what it skipped.
    """

    def __init__(
        self, weights: dict[str, float], out: TextIO | None = None, callback: ProgressCallback | None = None
    ) -> None:
        """weights: expected cost of each step by its path, in any one unit. callback: gets the lines in place of `out`."""
        self._weights, self._callback = weights, callback
        self._out = out or sys.stderr
        self._live = callback is None and self._out.isatty()
        self._lock = threading.Lock()
        self._finished: set[str] = set()
        self._starts: list[float] = []  # seconds from each step's beginning to its first news
        self._paced, self._paced_s = 0.0, 0.0  # weight done after a step's first news, and the seconds it took
        self._since, self._share_since = (
            0.0,
            0.0,
        )  # when the current step began or was last heard of, and its share then
        self._step, self._title, self._share, self._text = "", "", 0.0, ""
        self._points: float | None = None
        self._last_line = 0.0

    def begin(self, step: str, title: str) -> None:
        """A step starts to work."""
        with self._lock:
            self._step, self._title, self._share, self._text = step, title, 0.0, ""
            self._since, self._share_since = time.monotonic(), 0.0
            self._show(force=True)

    def advance(self, share: float, text: str = "") -> None:
        """The current step is done to this share."""
        with self._lock:
            self._measure(share)
            self._text = text
            self._show()

    def points(self, per_image: float) -> None:
        """Points an image, as of the last update of the pseudo-labels."""
        self._points = per_image

    def finish(self, text: str = "") -> None:
        """The current step is done, now."""
        with self._lock:
            self._measure(1.0)
            self._finished.add(self._step)
            self._share, self._text = 1.0, text
            self._show(force=True, end=True)
            self._share, self._step = 0.0, ""

    def skip(self, step: str) -> None:
        """The step was done before this process began."""
        self._finished.add(step)

    def note(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._write(text, end=True)

    def _measure(self, share: float) -> None:
        """The current step has come to this share: what its start took, or how fast it works."""
        now = time.monotonic()
        if self._share_since == 0.0 and share > 0.0:
            self._starts.append(now - self._since)
        elif share > self._share_since:
            self._paced += self._weights.get(self._step, 0.0) * (share - self._share_since)
            self._paced_s += now - self._since
        if share > self._share_since:
            self._since, self._share_since = now, share
        self._share = share

    def _total_share(self) -> float:
        """The share of all weight that is done, at most 1."""
        total = sum(self._weights.values()) or 1.0
        current = self._weights.get(self._step, 0.0) * self._share if self._step not in self._finished else 0.0
        return min((sum(self._weights.get(step, 0.0) for step in self._finished) + current) / total, 1.0)

    def _left(self, weight: float) -> float | None:
        """Seconds, for the weight that is left; None while there is nothing to tell them from."""
        if not self._paced or not weight:
            return None
        begun = {self._step} if self._share else set()
        starts = len(self._weights.keys() - self._finished - begun) * sum(self._starts) / len(self._starts)
        return starts + weight * self._paced_s / self._paced

    def _show(self, *, force: bool = False, end: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last_line < (0.2 if self._live else _LOG_EVERY_S):
            return
        self._last_line = now
        pieces = [f"[{self._total_share():4.0%}] {self._title}"]
        if self._text:
            pieces.append(self._text)
        if self._points is not None:
            pieces.append(f"{self._points:.1f} points/image")
        left = self._left((1 - self._total_share()) * sum(self._weights.values()))
        if left is not None:
            pieces.append(f"{clock(left)} left")
        self._write(" · ".join(pieces), end=end or not self._live)

    def _write(self, line: str, *, end: bool) -> None:
        if self._callback:
            self._callback(self._total_share(), line)
            return
        start = "\r\x1b[K" if self._live else ""
        self._out.write(f"{start}{line}" + ("\n" if end else ""))
        self._out.flush()


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
