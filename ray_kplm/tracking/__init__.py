"""MLflow tracking: one experiment for each dataset, one MLflow run for each run directory. Nothing else imports MLflow.

    with track_run(run, dataset.meta) as tracker:        # tracker.py: parameters, metrics, files and the final status
        tracker.log_metrics({"loss": 0.5}, step=10)      # sender.py: in the background, through the queue of spool.py
        tracker.log_model(run, examples)                 # model.py: the detector for `mlflow.pyfunc.load_model`
    add_evaluation(run, metrics)                         # finished.py: what is added after the end

store.py makes the requests through client.py; record.py knows which MLflow run belongs to a run directory, and moves.py what
to do when the directory was moved or copied.

The stages of a run are not child runs: their curves are named `stage1/...`, `stage2/...` and share one axis, the global
iteration. Children are the runs of a group, that is of an ablation or a sweep.
"""

from ray_kplm.tracking.finished import add_evaluation, add_picture, add_report, audit, has_pending, send_pending
from ray_kplm.tracking.record import check_environment
from ray_kplm.tracking.tracker import ParentRun, Tracker, track_group, track_run

__all__ = [
    "ParentRun",
    "Tracker",
    "add_evaluation",
    "add_picture",
    "add_report",
    "audit",
    "check_environment",
    "has_pending",
    "send_pending",
    "track_group",
    "track_run",
]
