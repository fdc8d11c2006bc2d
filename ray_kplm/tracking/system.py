"""Load of the driver's machine, as MLflow measures and names it."""

from __future__ import annotations

import os
import time

from ray_kplm.tracking.spool import Point, milliseconds

_EVERY_S = 10.0


class SystemMetrics:
    """CPU, memory, disk, network and, where there is one, GPU of this machine, every ten seconds.

    MLflow's own thread would ask the server each time and end with the first failure; its monitors alone are used. The step is
    in seconds since the run was made, which grows over all interruptions. Off where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false;
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL changes the interval.
    """

    def __init__(self, began: int, tracking_uri: str) -> None:
        """began: ms since the epoch."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._began = began
        self._on = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() not in ("false", "0")
        self._monitor = SystemMetricsMonitor(run_id="", sampling_interval=_EVERY_S, tracking_uri=tracking_uri)
        self._next = time.monotonic() + self._monitor.sampling_interval

    def due(self) -> list[Point]:
        """What is measured now, if it is time."""
        if not self._on or time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._monitor.sampling_interval
        self._monitor.collect_metrics()
        now = milliseconds()
        values = self._monitor.aggregate_metrics()
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        step = (now - self._began) // 1000
        return [Point(f"system/{name}", float(value), step, now) for name, value in values.items()]
