"""`kplm sweep`: which configuration finds the best landmarks?

<sweep>/sweep.json, trials/00000.json ...    what is searched, and what is known (experiments/journal.py)
<sweep>/keypoints/<fingerprint>/             generic keypoints, found once for all trials that begin with the same
<sweep>/000,batch_size=8/ ...                the trials' run directories
<sweep>/best.yaml, results.{json,csv}, index.html
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.errors import CollapseError, ConfigError, KplmError, RunError, StoppedEarly
from ray_kplm.experiments.halving import Halving
from ray_kplm.experiments.journal import FAILED, FINISHED, RUNNING, STOPPED, Journal, Trial, best, read_trial
from ray_kplm.experiments.objective import AUTO, TITLES, at_end, choose, of_round
from ray_kplm.experiments.pages import best_yaml, results_csv, sweep_page
from ray_kplm.experiments.samplers import GRID, RANDOM, Sampler
from ray_kplm.experiments.space import Space, configured, read_space
from ray_kplm.experiments.trial import absolute, discover_with_reuse, progress_to
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.runtime.tune import Report, run_trials
from ray_kplm.steps.context import LAYOUT
from ray_kplm.steps.executor import Executor
from ray_kplm.steps.recorder import record
from ray_kplm.storage import Folder
from ray_kplm.tracking import ParentRun, Tracker, add_evaluation, track_group

_FINAL = (CollapseError.__name__, ConfigError.__name__)
"""Failures that would come again."""


@dataclass(frozen=True)
class SweepOptions:
    """How to search."""

    over: Sequence[str]
    """See `search.space`."""
    search: str | None = None
    """grid, random or tpe; None: a grid where all dimensions are lists, else random."""
    samples: int = 20
    """Trials of random and tpe search."""
    max_concurrent: int | None = None
    """Trials side by side; None: as many as there is room for."""
    seed: int = 0
    """Of the search. That of the runs is the configuration's."""
    objective: str = AUTO
    halving: Halving | None = None
    """Stop weak trials early."""


def sweep(config: Config, options: SweepOptions, progress: ProgressCallback) -> dict[str, Any]:
    """Try configurations below `config.run`, and return what `results.json` there holds: the best trial, and all of them.

    Continues a sweep that was interrupted: finished and stopped trials stay as they are, the others go on in their run
    directories. More samples may be asked for than before. Raises RunError if no trial came to its end.
    """
    if not config.run:
        raise ConfigError("run = '': name the sweep's folder, for example run=runs/sweep")
    config = absolute(config)
    dataset = Dataset.open(config.dataset)
    space = read_space(options.over, config)
    search = options.search or (GRID if space.is_listed else RANDOM)
    objective = choose(options.objective, dataset)
    if options.halving and not record(Run(Folder.at(config.run), config), dataset).has_clusters:
        raise ConfigError(f"--asha: the rounds of method.kind = {config.method.kind} have no landmarks to compare")
    sampler = Sampler(space, search, options.samples, options.seed, partial(configured, config))
    journal = Journal(Folder.at(config.run))
    journal.begin(_definition(config, space, search, objective, options))
    leaves = _Results(Folder.at(config.run), config, space, objective, dataset)
    if journal.unfinished() or sampler.suggest(journal.trials):
        parameters = {"objective": objective, "search": search, **space.to_dict()}
        with (
            session(config.compute, options.max_concurrent or 1),
            track_group(leaves.folder, dataset.meta, parameters) as group,
        ):
            trials = _Trials(journal, sampler, options.halving, group, leaves, progress)
            run_trials(
                partial(_trial, leaves.folder, objective, group.parent),
                trials,
                max_concurrent=options.max_concurrent,
                scratch=leaves.folder / "tune",
                progress=progress,
            )
    results = leaves.publish(journal.trials)
    if results["best"] is None:
        errors = [trial.error for trial in journal.trials if trial.error]
        raise RunError(f"{config.run}: no trial came to its end; {errors[0] if errors else 'none has an objective'}")
    return results


def _definition(config: Config, space: Space, search: str, objective: str, options: SweepOptions) -> dict[str, Any]:
    """What must not change while a sweep goes on. The number of samples may, and how work is laid out as far as it may in a
    run."""
    layout = {f"compute.{name}" for name in asdict(config.compute)} - {f"compute.{name}" for name in LAYOUT}
    fixed = {path: value for path, value in config.flat().items() if path not in {"run", *layout}}
    halving = asdict(options.halving) if options.halving else {}
    how = {"--search": search, "--objective": objective, "--seed": options.seed}
    return {
        **fixed,
        **{f"--over {path}": what for path, what in space.to_dict().items()},
        **how,
        "--grace-rounds": halving.get("grace"),
        "--reduction": halving.get("reduction"),
    }


@dataclass(frozen=True)
class _Results:
    """What a sweep leaves beside its trials."""

    folder: Folder
    base: Config
    space: Space
    objective: str
    dataset: Dataset

    def publish(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """results.json, results.csv, index.html and, once a trial is finished, best.yaml."""
        found = best(trials)
        results = {
            "sweep": self.folder.name,
            "dataset": str(self.dataset.meta.get("name") or self.dataset.root.name),
            "objective": self.objective,
            "title": TITLES[self.objective],
            "space": self.space.to_dict(),
            "best": None if found is None else asdict(found),
            "trials": [asdict(trial) for trial in trials],
        }
        self.folder.write_json("results.json", results)
        self.folder.write_bytes("results.csv", results_csv(results).encode())
        self.folder.write_bytes("index.html", sweep_page(results).encode())
        if found:
            text = best_yaml(self.configured(found), found, TITLES[self.objective])
            self.folder.write_bytes("best.yaml", text.encode())
        return results

    def configured(self, trial: Trial) -> Config:
        """A trial's configuration, in its run directory."""
        return configured(self.base, trial.values, f"{self.base.run}/{trial.name}")


class _Trials:
    """The source of a sweep's trials (runtime/tune.py): first those that were interrupted, then new ones."""

    def __init__(
        self,
        journal: Journal,
        sampler: Sampler,
        halving: Halving | None,
        group: Tracker,
        leaves: _Results,
        progress: ProgressCallback,
    ) -> None:
        self._journal, self._sampler, self._halving = journal, sampler, halving
        self._group, self._leaves, self._progress = group, leaves, progress
        self._interrupted = journal.unfinished()
        self._began: dict[str, float] = {}
        self._show("continues" if journal.trials else "begins")

    def next(self) -> tuple[str, Config] | None:
        while True:
            trial = self._take()
            if trial is None:
                return None
            config = self._leaves.configured(trial)
            self._began[trial.name] = time.time()
            try:
                self._find_keypoints(config, trial.name)
            except KplmError as error:
                self.ended(trial.name, {"error": str(error), "error_type": type(error).__name__})
                continue
            return trial.name, config

    def _take(self) -> Trial | None:
        if self._interrupted:
            return self._journal.update(self._interrupted.pop(0), state=RUNNING, error="")
        values = self._sampler.suggest(self._journal.trials)
        return None if values is None else self._journal.add(values)

    def _find_keypoints(self, config: Config, name: str) -> None:
        """Before the trial starts, so that two trials never find the same keypoints at once."""
        dataset = self._leaves.dataset
        folder = _keypoints_folder(self._leaves.folder, config, dataset)
        if folder.is_file("keypoints/manifest.json"):
            return
        run = Run.start(configured(config, {}, str(folder)))
        run.save()
        recording = record(run, dataset)
        show = progress_to(lambda share, text: self._progress(share, f"{name}: {text}"))
        Executor(run, recording, show).execute(until=recording["keypoints"])

    def reported(self, name: str, report: dict[str, Any]) -> None:
        trial = self._journal.named(name)
        self._journal.report(trial, report["round"], report["objective"], report["rounds"], self._halving)

    def ended(self, name: str, figures: dict[str, Any]) -> None:
        trial = self._journal.named(name)
        seconds = round(trial.seconds + time.time() - self._began[name], 1)
        if "error" in figures:
            final = figures["error_type"] in _FINAL
            trial = self._journal.update(trial, state=FAILED, error=figures["error"], final=final, seconds=seconds)
        elif trial.state == STOPPED:
            trial = self._journal.update(trial, seconds=seconds)
        else:
            objective = figures.pop("objective")
            trial = self._journal.update(trial, state=FINISHED, objective=objective, figures=figures, seconds=seconds)
        self._publish()
        self._show(f"trial {trial.number} {trial.state}{f': {trial.error}' if trial.error else ''}")

    def _publish(self) -> None:
        """Results as they stand, on storage and in MLflow."""
        results = self._leaves.publish(self._journal.trials)
        if results["best"]:
            self._group.log_metrics({"best/objective": results["best"]["objective"]}, self._done())
            for name in ("best.yaml", "results.json", "results.csv", "index.html"):
                self._group.log_file(name, self._leaves.folder.read_bytes(name))

    def _show(self, text: str) -> None:
        found = best(self._journal.trials)
        beside = "" if found is None else f"; best {found.objective:.2f}, trial {found.number}"
        share = self._done() / max(self._sampler.samples, 1)
        self._progress(share, f"{text}; {self._done()} of {self._sampler.samples} trials done{beside}")

    def _done(self) -> int:
        """Trials that are over; those that failed by bad luck are not, while they wait to be tried again."""
        waiting = {trial.number for trial in self._interrupted}
        return sum(trial.state != RUNNING and trial.number not in waiting for trial in self._journal.trials)


def _keypoints_folder(sweep: Folder, config: Config, dataset: Dataset) -> Folder:
    """Where the generic keypoints are that a configuration begins with."""
    recording = record(Run(sweep, config), dataset)
    return sweep / "keypoints" / recording["keypoints"].fingerprint[:12]


def _trial(
    sweep: Folder, objective: str, parent: ParentRun, config: Config, progress: ProgressCallback, report: Report
) -> dict[str, Any]:
    """A trial, in a process of its own on any node."""
    number = int(Folder.at(config.run).name.split(",", 1)[0])
    siblings = [_keypoints_folder(sweep, config, Dataset.open(config.dataset))]
    siblings += [sweep / name for name in sweep.folders() if name[0].isdigit()]

    def after_round(executor: Executor, finished: int) -> None:
        known = read_trial(sweep, number)
        if finished not in known.reports:
            value = of_round(objective, executor.run, finished)
            if value is not None:
                executor.track_round(finished, {f"sweep/{objective}": value})
            report({"round": finished, "objective": value, "rounds": config.stage1.rounds})
            known = read_trial(sweep, number)
        if known.state == STOPPED:
            raise StoppedEarly(f"stopped after round {finished}")

    try:
        run = discover_with_reuse(siblings, config, progress, parent, after_round)
    except StoppedEarly as stopped:
        progress(1.0, str(stopped))
        return {}
    value, figures, metrics = at_end(objective, run, progress)
    if metrics:
        add_evaluation(run, metrics)
    return {"objective": value, **figures}
