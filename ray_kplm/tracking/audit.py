"""What the store has of a run, asked from outside: whether all that happened to the run left one MLflow run without repeats."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ray_kplm.run import Run
from ray_kplm.tracking.record import Record
from ray_kplm.tracking.store import open_client, recorded


def audit(run: Run) -> dict[str, Any]:
    """`runs`: MLflow runs of this run directory; of the recorded one: `status`, and `repeated`, curves with a step twice."""
    record = Record(run.folder)
    client = open_client(recorded(run.folder.parent, record))
    found = client.get_run(record["run_id"])
    wanted = f"tags.run_directory = '{found.data.tags['run_directory']}'"
    steps = {name: Counter(p.step for p in client.get_metric_history(found.info.run_id, name))
             for name in found.data.metrics if not name.startswith("system/")}  # fmt: skip
    return {
        "runs": len(client.search_runs([found.info.experiment_id], wanted)),
        "status": found.info.status,
        "repeated": sorted(name for name, counts in steps.items() if max(counts.values()) > 1),
    }
