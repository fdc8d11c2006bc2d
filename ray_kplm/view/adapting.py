"""The fit of own points on the labels of the page, as a job of the worker."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from typing import Any

from ray_kplm.errors import ConfigError, KplmError
from ray_kplm.run import Run
from ray_kplm.view.label_file import LabelFile

_log = logging.getLogger("ray_kplm.view")
NONE, RUNNING, DONE, FAILED = "none", "running", "done", "failed"


class Job:
    """One fit at a time, and how far it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "state": NONE,
            "can": importlib.util.find_spec("ray_kplm.analysis.adapt") is not None,
        }

    def state(self) -> dict[str, Any]:
        """Return `state`, with `name`, `share` and `text` of the work, and `lines` of its result."""
        with self._lock:
            return dict(self._state)

    def begin(self, name: str) -> None:
        """Note that a set of points is fitted. Raises ConfigError if one is being fitted already."""
        with self._lock:
            if self._state["state"] == RUNNING:
                raise ConfigError(f"{self._state['name']} is being fitted: wait until it is")
            self._state |= {"state": RUNNING, "name": name, "share": 0.0, "text": "", "lines": []}

    def do(self, run: Run, labels: LabelFile, done: Callable[[], None]) -> None:
        """Fit the points, note the result, and call `done` before it is told."""
        try:
            lines = _adapt(run, labels.path, str(self.state()["name"]), self._show)
            done()
            self._note(state=DONE, share=1.0, lines=lines)
        except KplmError as error:
            self._note(state=FAILED, text=str(error))
        except Exception as error:
            _log.exception("the fit failed")
            self._note(state=FAILED, text=f"the fit failed: {error}")

    def _show(self, share: float, text: str) -> None:
        self._note(share=share, text=text)

    def _note(self, **facts: Any) -> None:
        with self._lock:
            self._state |= facts


def _adapt(run: Run, labels: str, name: str, progress: Callable[[float, str], None]) -> list[str]:
    raise ConfigError("not yet")
