"""The fit of own points on the labels of the page, as a job of the worker: `kplm adapt`."""

from __future__ import annotations

import logging
import threading
from typing import Any

from ray_kplm.analysis.adapt import AdaptOptions, adapt
from ray_kplm.errors import ConfigError, KplmError
from ray_kplm.evaluation.json_numbers import json_number
from ray_kplm.labels.reading import read_labels
from ray_kplm.run import Run

_log = logging.getLogger("ray_kplm.view")
NONE, RUNNING, DONE, FAILED = "none", "running", "done", "failed"
_SHOWN = (
    "objects",
    "error",
    "error_pixels",
    "table",
    "forecast",
    "recipe",
    "left_out",
    "notes",
    "rejected",
    "confused",
)
"""What the page shows of a fit: see `analysis.adapt`."""


class Job:
    """One fit at a time, and how far it is."""

    def __init__(self, device: str | None) -> None:
        """Begin nothing; `device` is that of the network."""
        self._device, self._lock = device, threading.Lock()
        self._state: dict[str, Any] = {"state": NONE}

    def state(self) -> dict[str, Any]:
        """Return `state`, with `name`, `share` and `text` of the work, and `facts` of its result."""
        with self._lock:
            return dict(self._state)

    def begin(self, name: str) -> None:
        """Note that a set of points is fitted. Raises ConfigError if one is being fitted already."""
        with self._lock:
            if self._state["state"] == RUNNING:
                raise ConfigError(f"{self._state['name']} is being fitted: wait until it is")
            self._state = {"state": RUNNING, "name": name, "share": 0.0, "text": ""}

    def do(self, run: Run, labels: str) -> None:
        """Fit the points to a file of labels, and note the result."""
        try:
            options = AdaptOptions(str(self.state()["name"]), boxes=False, device=self._device)
            facts = adapt(run, read_labels(labels), options, self._show).facts
            self._note(state=DONE, share=1.0, facts=_finite({name: facts.get(name) for name in _SHOWN}))
        except KplmError as error:
            self._note(state=FAILED, text=str(error))
        except Exception:
            _log.exception("the fit failed")
            self._note(state=FAILED, text="the fit failed; the log of the server says why")

    def _show(self, share: float, text: str) -> None:
        self._note(share=share, text=text)

    def _note(self, **facts: Any) -> None:
        with self._lock:
            self._state |= facts


def _finite(value: Any) -> Any:
    """Return plain values with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return json_number(value) if isinstance(value, float) else value
