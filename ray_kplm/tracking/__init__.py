"""MLflow, and the only place that imports it: one experiment for each dataset, one MLflow run for each run directory.

A run has no child for each stage: its curves are named `stage1/...`, `stage2/...` along one axis, the global iteration, and a
child would cut them apart. Children are the runs of a group, an ablation's or a sweep's.

    with tracked(run, dataset.meta) as tracker:      # store.py: where the store is, and the MLflow run of a run directory
        tracker.metrics({"loss": 0.5}, step=10)      # spool.py: to disk; sender.py: to the store, in the background
        tracker.model(run, examples)                 # model.py: the detector for `mlflow.pyfunc.load_model`
    add_evaluation(run, metrics)                     # finished.py: what comes later
"""

from ray_kplm.tracking.audit import audit
from ray_kplm.tracking.finished import add_evaluation, add_picture, add_report, catch_up
from ray_kplm.tracking.tracker import Parent, Tracker, grouped, tracked

__all__ = [
    "Parent",
    "Tracker",
    "add_evaluation",
    "add_picture",
    "add_report",
    "audit",
    "catch_up",
    "grouped",
    "tracked",
]
