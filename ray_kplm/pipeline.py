"""From unlabelled images to a landmark detector: locks the run, joins Ray, tracks, and runs the method's page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.job_copy import refuse_lost
from ray_kplm.locking import lock_folder
from ray_kplm.progress import ProgressDisplay
from ray_kplm.report.choice_table import choice_line
from ray_kplm.run import Run
from ray_kplm.runtime.session import session
from ray_kplm.steps.choose import CHOICE, has_auto, resolve
from ray_kplm.steps.executor import AfterRound, Executor
from ray_kplm.steps.recorder import record
from ray_kplm.tracking import ParentRun, check_environment, has_pending, send_pending, track_run


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
    check_environment()
    if config.augment.extra:
        from ray_kplm.imaging.extra_transforms import check_extra  # takes a second

        check_extra(config.augment.extra, config.network.image_size)
    dataset = Dataset.open(config.dataset)
    run = _choose_numbers(Run.start(config), dataset, progress)
    recording = record(run, dataset)
    recording.check_outputs()
    if recording.is_finished():
        _finish_up(run, dataset, progress)
        return run, False
    with lock_folder(run.folder) as lock:
        owned = replace(run, folder=lock.folder)
        with session(config.compute), track_run(owned.save(), dataset.meta, parent) as tracker:
            executor = Executor(owned, record(owned, dataset), progress, tracker)
            with executor.workers():
                executor.execute(check=lock.check, after_round=after_round)
                tracker.log_model(owned)
    return run, True


def _finish_up(run: Run, dataset: Dataset, progress: Callable[[dict[str, float]], ProgressDisplay]) -> None:
    """Do what a driver left that was killed after the last step; nothing is written if it left nothing."""
    executor = Executor(run, record(run, dataset), progress)
    if executor.has_leftovers or has_pending(run):
        with lock_folder(run.folder) as lock:
            owned = replace(run, folder=lock.folder)
            Executor(owned, record(owned, dataset), progress).clean_up()
            send_pending(owned, dataset.meta)


def _choose_numbers(run: Run, dataset: Dataset, progress: Callable[[dict[str, float]], ProgressDisplay]) -> Run:
    """Return the run with numbers in place of `auto` landmarks and clusters: those of its record, or newly chosen ones."""
    if not has_auto(run.config):
        return run
    if run.manifest(CHOICE) is None:
        path = (run.folder / CHOICE).path
        display = progress({path: 1.0})
        with lock_folder(run.folder) as lock, session(run.config.compute):
            owned = replace(run, folder=lock.folder)
            if not owned.folder.is_file("config.yaml"):
                owned.save()  # makes the folder a run, which an interruption leaves to be continued
            display.begin(path, "numbers of landmarks and clusters")
            resolve(owned, dataset, display.advance)
            choice = owned.finished(CHOICE)
            display.finish(choice_line(choice))
            for doubt in choice.get("doubts", ()):
                display.print_line(f"unsure: {doubt}")
    return replace(run, config=resolve(run, dataset))
