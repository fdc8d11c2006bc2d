"""The steps of a run, done and to come: `kplm steps`."""

from __future__ import annotations

import argparse
from typing import Any

from ray_kplm.cli import checks
from ray_kplm.cli.console import Result, add_json, command
from ray_kplm.report.text_table import align


def add(commands: Any) -> None:
    """Declare the command."""
    text = (
        "List the steps of a run in their order, and whose output each takes. A step is done, begun, to do, stale (made under "
        "another configuration) or deleted (done, and needed by no step any more). The list is recorded from the page of the "
        "run's method, for instance ray_kplm/methods/kplm.py."
    )
    parser = command(commands, "steps", _steps, text)
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "--mermaid", action="store_true", help="print a Mermaid flow chart instead, done steps in green"
    )
    add_json(parser, "the steps")


def _steps(options: argparse.Namespace) -> Result:
    from ray_kplm.run import Run

    run = Run.open(options.run)
    dataset = checks.dataset_of(run)
    with options.console.loading():
        from ray_kplm.steps.recorder import record
    recording = record(run, dataset)
    if options.mermaid:
        return Result(recording.picture())
    rows = [
        {"step": task.path, "state": recording.state(task), "takes": [taken.path for taken in task.takes]}
        for task in recording
    ]
    cells = [[recording.state(task), task.path, " ".join(taken.path for taken in task.takes)] for task in recording]
    return Result("\n".join(align([["state", "step", "takes"], *cells], left=(0, 1, 2))), {"steps": rows})
