"""`<run>/mlflow.json`: which MLflow run a run directory is tracked by, and what is known of it without asking."""

from __future__ import annotations

import threading
from typing import Any

from ray_kplm.storage import Folder

RECORD = "mlflow.json"


class Record:
    """run_id, tracking_uri; beside: the store is our own database beside the run, and moves with it; began: ms since the epoch;
    status, as of the last process that could say; step: the last global iteration; model: fingerprint of the one logged."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._values: dict[str, Any] = folder.read_json(RECORD) if folder.is_file(RECORD) else {}

    def __getitem__(self, name: str) -> Any:
        """None where nothing is known."""
        return self._values.get(name)

    def update(self, **values: Any) -> None:
        with self._lock:
            if {**self._values, **values} != self._values:
                self._values |= values
                self.folder.write_json(RECORD, self._values)
