"""The whole method on one page (thesis Algorithm 2 and section 6.1)."""

from __future__ import annotations

from collections.abc import Callable

from ray_kplm.config import Config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.progress import ProgressDisplay
from ray_kplm.run import Run
from ray_kplm.run_lock import lock_folder
from ray_kplm.runtime.session import session
from ray_kplm.steps.discovery import Discovery
from ray_kplm.tracking import ParentRun, send_pending, track_run


def discover(
    config: Config,
    progress: Callable[[dict[str, float]], ProgressDisplay] = ProgressDisplay,
    parent: ParentRun | None = None,
    after_round: Callable[[Discovery, int], None] = lambda discovery, number: None,
) -> tuple[Run, bool]:
    """Unlabelled images in, landmark detector out. Continues a run that was interrupted; a finished one is left as it is.

    parent: the group of runs in MLflow (`tracking.track_group`) that this one belongs to.
    after_round: called with every round that is finished, also before an interruption; it may raise to end the run there.
    Returns the run, and whether there was anything to do. Raises KplmError, one line that says what to change, or
    which other driver is at work on the run; the run directory keeps all that was finished.
    """
    dataset = Dataset.open(config.dataset)
    run = Run.start(config)
    discovery = Discovery(run, dataset, progress)
    if discovery.is_finished():
        discovery.tidy()
        send_pending(run, dataset.meta, discovery.examples)
        return run, False
    with (
        lock_folder(run.folder) as lock,
        session(config.compute),
        track_run(run.save(), dataset.meta, parent) as tracker,
        discovery.workers(),
    ):
        discovery.report_to(tracker)
        discovery.detect_keypoints()
        discovery.label_keypoints()
        for number in range(config.stage1.rounds + 1):  # round 0 is the warm-up
            lock.check()
            discovery.train_round(number)
            discovery.update_pseudo_labels(number)
            after_round(discovery, number)
        discovery.align()
        discovery.train_landmarks()
        tracker.log_model(run, discovery.examples())
    return run, True
