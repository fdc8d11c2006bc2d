"""The actor of a trial of Ray Tune."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from ray_kplm.errors import CollapseError, ConfigError, StoppedEarly
from ray_kplm.progress import ProgressCallback

ERROR, FINAL = "error", "final"
"""Metrics of a trial's last result: the error that it would have again, and that it is the last one."""

Values = dict[str, Any]
Report = Callable[[Mapping[str, Any]], None]
"""Gives metrics to Tune; raises StoppedEarly where the scheduler ends the trial."""
TrialFunction = Callable[[str, Values, ProgressCallback, Report], Mapping[str, Any]]
"""Runs the values of a trial, by its name, and returns its last metrics, ready for JSON. Runs in an actor, on any node."""


class TrialActor(tune.Trainable):
    """Runs a trial in a thread, which waits at each report until Tune has decided whether it goes on.

    A function as trainable would be simpler. But Tune ends the process of a function that it stops while the function still
    cleans up (Ray 2.60): its run would stay locked, and Ray Train would keep the CPUs and GPUs of the run's workers. Here
    `cleanup` waits until the run has ended.
    """

    def setup(self, config: Values, trial: TrialFunction, channel: Any, metric: str | None) -> None:
        """Get ready. The trial starts with the first step, after `Events.started`."""
        self._results: queue.Queue[Mapping[str, Any] | BaseException] = queue.Queue()
        self._goes_on: queue.Queue[bool] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(trial, config, channel, metric), daemon=True)

    def step(self) -> dict[str, Any]:
        """Return the next metrics of the trial."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._goes_on.put(True)  # Tune asks for more, so the trial, which waits, goes on
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return dict(result)

    def cleanup(self) -> None:
        """Wait until the trial has ended."""
        if self._thread.ident is not None:
            self._goes_on.put(False)
            self._thread.join()

    def _work(self, trial: TrialFunction, values: Values, channel: Any, metric: str | None) -> None:
        name = self.trial_name
        try:
            metrics = trial(name, values, _ProgressSender(channel, name), self._report)
            self._results.put({**metrics, FINAL: True, "done": True})
        except StoppedEarly:
            return
        except (CollapseError, ConfigError) as error:  # they would come again
            worst = {metric: math.inf} if metric else {}
            self._results.put({**worst, ERROR: str(error), FINAL: True, "done": True})
        except BaseException as error:  # `step` raises it
            self._results.put(error)

    def _report(self, metrics: Mapping[str, Any]) -> None:
        self._results.put(metrics)
        if not self._goes_on.get():
            raise StoppedEarly("the scheduler stopped the trial: others are better")


class _ProgressSender:
    """Sends a trial's progress to the driver."""

    def __init__(self, channel: Any, name: str) -> None:
        self._channel, self._name, self._count = channel, name, 0

    def __call__(self, share: float, text: str) -> None:
        self._count += 1
        self._channel.send.remote((self._count, self._name), (share, text))
