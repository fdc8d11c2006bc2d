"""From unlabelled images to a landmark detector: locks the run, joins Ray, tracks, and runs the method's page."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.imaging.crops import decode_crop, letterbox
from ray_kplm.job_copy import refuse_lost
from ray_kplm.progress import ProgressDisplay
from ray_kplm.report.choice_table import choice_line
from ray_kplm.run import Run
from ray_kplm.run_lock import lock_folder
from ray_kplm.runtime.session import session
from ray_kplm.schemas import TRAIN
from ray_kplm.steps.choose import CHOICE, has_auto, resolve
from ray_kplm.steps.executor import AfterRound, Executor
from ray_kplm.steps.recorder import record
from ray_kplm.tracking import ParentRun, send_pending, track_run


def discover(
    config: Config,
    progress: Callable[[dict[str, float]], ProgressDisplay] = ProgressDisplay,
    parent: ParentRun | None = None,
    after_round: AfterRound = lambda executor, round: None,
) -> tuple[Run, bool]:
    """Discover landmarks in unlabelled images and train a detector of them.

    An interrupted run is continued; a finished one is left as it is. What a run consists of stands on the page of its method,
    `methods.kplm.discover_landmarks` for instance.

    Args:
        config: with `dataset`, that `kplm ingest` made, and `run`, the run directory.
        progress: makes the display from the weights of the steps.
        parent: the group of runs in MLflow (`tracking.track_group`) that this one belongs to.
        after_round: called after each finished round, also for those finished before an interruption; it may raise to end
            the run there.

    Returns:
        The run, and whether there was anything to do.

    Raises:
        KplmError: in one line, what to change, or which other driver works on the run. What was finished is kept.
    """
    refuse_lost(config.run, "run")
    dataset = Dataset.open(config.dataset)
    run = _choose_numbers(Run.start(config), dataset, progress)
    recording = record(run, dataset)
    if recording.is_finished():
        Executor(run, recording, progress).clean_up()
        send_pending(run, dataset.meta, lambda: _examples(dataset, config))
        return run, False
    with (
        lock_folder(run.folder) as lock,
        session(config.compute),
        track_run(run.save(), dataset.meta, parent) as tracker,
    ):
        executor = Executor(run, recording, progress, tracker)
        with executor.workers():
            executor.execute(check=lock.check, after_round=after_round)
            tracker.log_model(run, _examples(dataset, config))
    return run, True


def _choose_numbers(run: Run, dataset: Dataset, progress: Callable[[dict[str, float]], ProgressDisplay]) -> Run:
    """Return the run with numbers in place of `auto` landmarks and clusters: those of its record, or newly chosen ones."""
    if not has_auto(run.config):
        return run
    if run.manifest(CHOICE) is None:
        path = (run.folder / CHOICE).path
        display = progress({path: 1.0})
        with lock_folder(run.folder), session(run.config.compute):
            if not run.folder.is_file("config.yaml"):
                run.save()  # makes the folder a run, which an interruption leaves to be continued
            display.begin(path, "numbers of landmarks and clusters")
            resolve(run, dataset, display.advance)
            choice = run.finished(CHOICE)
            display.finish(choice_line(choice))
            for doubt in choice.get("doubts", ()):
                display.print_line(f"unsure: {doubt}")
    return replace(run, config=resolve(run, dataset))


def _examples(dataset: Dataset, config: Config, count: int = 2) -> NDArray[np.uint8]:
    """The first training images as the landmark detector takes them: uint8 (count, S, S, 3)."""
    folder = dataset.images(TRAIN)
    stored = (e for part in dataset.parts(TRAIN) for e in folder.read_table(part, ["image"])["image"])
    inputs = [letterbox(decode_crop(e), config.network.image_size)[0] for e in itertools.islice(stored, count)]
    return np.stack(inputs)
