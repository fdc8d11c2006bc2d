"""What the driver of a sweep does as its trials go on: it finds their generic keypoints and publishes their results."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import KplmError
from ray_kplm.experiments.objective import TITLES
from ray_kplm.experiments.pages import best_yaml, results_csv, sweep_page
from ray_kplm.experiments.space import Space, Values, configured
from ray_kplm.experiments.sweep_results import FAILED, FINISHED, RUNNING, STOPPED, Trial, best
from ray_kplm.experiments.trial import progress_to
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import Run
from ray_kplm.runtime.tune import OBJECTIVE, ROUND
from ray_kplm.steps.executor import Executor
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder
from ray_kplm.tracking import Tracker

RESULTS = "results.json"


class SweepEvents:
    """Follows the trials of a sweep (`runtime.tune.Events`) and publishes their results."""

    def __init__(
        self,
        folder: Folder,
        config: Config,
        space: Space,
        objective: str,
        dataset: Dataset,
        samples: int,
        group: Tracker,
        progress: ProgressCallback,
    ) -> None:
        self._folder, self._config, self._space, self._objective = folder, config, space, objective
        self._dataset, self._samples, self._group, self._progress = dataset, samples, group, progress
        self._began: dict[str, float] = {}
        self.state: dict[str, Trial] = {}

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return sorted(self.state.values(), key=lambda trial: trial.number)

    def began(self) -> None:
        """Show where the sweep stands."""
        self._show("continues" if self.state else "begins")

    def started(self, name: str, values: Values) -> None:
        """Note a trial, and find its generic keypoints, before it starts: so no two trials look for the same ones at once."""
        trial = self.state.get(name) or Trial(int(name.split(",", 1)[0]), name, values)
        self.state[name] = replace(trial, state=RUNNING, error="")
        self._began.setdefault(name, time.time())
        with suppress(KplmError):  # which the trial meets again
            self._find_keypoints(values, name)

    def _find_keypoints(self, values: Values, name: str) -> None:
        folder = keypoints_folder(configured(self._config, values, str(self._folder / name)), self._dataset)
        if folder.is_file("keypoints/manifest.json"):
            return
        run = Run.start(configured(self._config, values, str(folder)))
        run = replace(run, folder=replace(run.folder, guard=self._folder.guard))
        run.save()
        progress = progress_to(lambda share, text: self._progress(share, f"{name}: {text}"))
        recording = record(run, self._dataset)
        Executor(run, recording, progress).execute(until=recording["keypoints"])

    def reported(self, name: str, metrics: Mapping[str, Any]) -> None:
        """Note the objective of a round."""
        trial = self.state[name]
        reports = {**trial.reports, metrics[ROUND]: _measured(metrics[OBJECTIVE])}
        self.state[name] = replace(trial, reports=reports)

    def ended(self, name: str, metrics: Mapping[str, Any] | None, error: str) -> None:
        """Note how a trial ended, and publish the results."""
        trial = self.state[name]
        trial = replace(trial, seconds=round(trial.seconds + time.time() - self._began.pop(name), 1))
        if error:
            trial = replace(trial, state=FAILED, error=error, final=metrics is not None)
        elif metrics is None:
            trial = replace(trial, state=STOPPED)
        else:
            trial = replace(
                trial, state=FINISHED, objective=_measured(metrics[OBJECTIVE]), figures=dict(metrics["figures"])
            )
        self.state[name] = trial
        results = self.publish()
        if results["best"]:
            self._group.log_metrics({"best/objective": results["best"]["objective"]}, self._done())
            for file in ("best.yaml", RESULTS, "results.csv", "index.html"):
                self._group.log_file(file, self._folder.read_bytes(file))
        self._show(f"trial {trial.number} {trial.state}{f': {trial.error}' if trial.error else ''}")

    def publish(self) -> dict[str, Any]:
        """Write results.json, results.csv, index.html and, once a trial is finished, best.yaml."""
        found = best(self.trials)
        results = {
            "sweep": self._folder.name,
            "dataset": str(self._dataset.meta.get("name") or self._dataset.root.name),
            "objective": self._objective,
            "title": TITLES[self._objective],
            "space": self._space.to_dict(),
            "best": None if found is None else asdict(found),
            "trials": [asdict(trial) for trial in self.trials],
        }
        self._folder.write_json(RESULTS, results)
        self._folder.write_bytes("results.csv", results_csv(results).encode())
        self._folder.write_bytes("index.html", sweep_page(results).encode())
        if found:
            config = configured(self._config, found.values, f"{self._config.run}/{found.name}")
            text = best_yaml(config, found, TITLES[self._objective])
            self._folder.write_bytes("best.yaml", text.encode())
        return results

    def _show(self, text: str) -> None:
        found = best(self.trials)
        beside = "" if found is None else f"; best {found.objective:.2f}, trial {found.number}"
        done = self._done()
        self._progress(done / self._samples, f"{text}; {done} of {self._samples} trials done{beside}")

    def _done(self) -> int:
        return sum(trial.state != RUNNING for trial in self.trials)


def _measured(objective: float) -> float | None:
    """Return an objective as a trial reports it, None for infinity."""
    return objective if math.isfinite(objective) else None


def keypoints_folder(config: Config, dataset: Dataset) -> Folder:
    """Return the folder of the generic keypoints that a trial begins with."""
    below = Folder.at(config.run).parent
    recording = record(Run(below, config), dataset)
    return below / "keypoints" / recording["keypoints"].fingerprint[:12]
