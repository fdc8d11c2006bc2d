"""Does the recorded tasks of a run: each is skipped if it is done, continued if it was begun, and done otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray_kplm.parts import Workers
from ray_kplm.progress import ProgressDisplay
from ray_kplm.run import Run
from ray_kplm.runtime.kmeans_actors import ClusteringActors, ClusteringPlace, own_hosts
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import TrainWorkerPool
from ray_kplm.steps.recorder import Recording
from ray_kplm.steps.task import Task
from ray_kplm.tracking import Tracker

AfterRound = Callable[["Executor", int], None]
"""Called with the executor and the number of a round when the round is finished, in this process or before."""


class Executor:
    """Runs the tasks of a recording in order. Tasks use its display, tracker and training workers."""

    def __init__(
        self,
        run: Run,
        recording: Recording,
        progress: Callable[[dict[str, float]], ProgressDisplay] = ProgressDisplay,
        tracker: Tracker | None = None,
    ) -> None:
        """progress: makes the display from the weights of the steps."""
        self.run, self._recording, self._tracker = run, recording, tracker
        self.progress = progress(recording.weights())
        self._workers = TrainWorkerPool(run.config.compute, run.folder)
        self._clustering = ClusteringActors()
        if tracker:
            tracker.set_logger(self.progress.print_line)

    def execute(
        self,
        *,
        until: Task | None = None,
        check: Callable[[], None] = lambda: None,
        after_round: AfterRound = lambda executor, round: None,
    ) -> None:
        """Run all tasks that are not done.

        Args:
            until: the last task to run; by default all are run.
            check: called before each task; it raises if the run must not go on.
            after_round: called after each round; it may raise to end the run there.
        """
        for task in self._recording:
            check()
            self._run(task)
            if task.completes_round is not None:
                after_round(self, task.completes_round)
            if task is until:
                return

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Keep training workers and the actors of clustering for the block: they start when needed, and end with it."""
        compute = self.run.resolved.compute
        self.progress.print_line(
            f"networks run in {compute.precision}, channels_last: {compute.channels_last}, compiled: {compute.compile}"
        )
        try:
            yield
        except Exception:
            self._close()
            raise
        self._close()  # not after Ctrl-C, which does not wait for them: they end with this process

    def _close(self) -> None:
        self._clustering.close()
        self._workers.close()

    @property
    def has_leftovers(self) -> bool:
        """Whether `clean_up` has something to delete."""
        return self._workers.has_checkpoints

    def clean_up(self) -> None:
        """Delete what a finished run needs no more, in case the process was killed after the last task."""
        self._workers.close()

    def _run(self, task: Task) -> None:
        manifest = task.step.manifest()
        if manifest is None and task.is_transient and self._recording.is_consumed(task):
            self.progress.skip(task.folder.path)
        elif manifest is None:
            self._remove_half_written(task)
            task.step.begin()
            if task.worker_batch is None:
                self._workers.make_room(gpus=not task.works_in_workers)
            if task.starts_workers:
                self._prepare_workers(task)
            task.run(self)
            if task.uses_clustering and not any(later.uses_clustering for later in self._later(task)):
                self._clustering.close()
        else:
            self.progress.skip(task.folder.path)
            if "points_per_image" in manifest:
                self.progress.set_points_per_image(manifest["points_per_image"])
        for taken in task.takes:
            self._delete_if_consumed(taken)

    def _remove_half_written(self, task: Task) -> None:
        """Remove what processes were writing for a task when they were killed."""
        beside = [task.folder.parent] if task.folder.parent != self.run.folder else []
        for folder in (task.folder, *beside):
            for name in folder.names(suffix=".partial"):
                folder.delete_file(name)

    def _delete_if_consumed(self, task: Task) -> None:
        if task.is_transient and not self.run.config.keep_features and self._recording.is_consumed(task):
            task.folder.delete()

    def _prepare_workers(self, task: Task) -> None:
        """Let the workers of the next training start, which takes seconds, while a task runs that leaves them room."""
        batch = self._next_batch(task)
        if batch is not None:
            self._workers.prepare(batch)

    def _next_batch(self, task: Task) -> int | None:
        """Return `Plan.batch` of the first training after a task; None if none follows."""
        batches = (later.worker_batch for later in self._later(task))
        return next((batch for batch in batches if batch is not None), None)

    def _later(self, task: Task) -> Sequence[Task]:
        tasks = self._recording.tasks
        return tasks[tasks.index(task) + 1 :]

    # -- what tasks use

    def begin(self, task: Task, title: str) -> None:
        """Show that a task works now."""
        self.progress.begin(task.folder.path, title)

    def finish(
        self, task: Task, facts: dict[str, Any], metrics: dict[str, float], iteration: int, text: str = ""
    ) -> None:
        """Publish a task's step with its facts, and send its metrics at a global iteration."""
        task.step.finish(**facts)
        if self._tracker:
            self._tracker.log_metrics(metrics, iteration)
        self.progress.finish(text)

    def train(self, task: Task, training: Training, first: int, stage: str) -> None:
        """Run a training on the workers and publish its step.

        Args:
            task: whose network is trained.
            training: what the workers do.
            first: global iteration at its beginning.
            stage: prefix of its metrics.
        """
        logger = TrainingLogger(self.progress, self._tracker, training.plan.iterations, first, stage)
        manifest = self._workers.train(task.step, training, logger)
        if self._next_batch(task) is None:
            self._workers.close()
        self.progress.finish(f"loss {manifest['metrics']['loss']:.4f}")

    def place(self, task: Task) -> Workers:
        """Return where a task works on parts: in the training workers if they hold the GPUs, otherwise on the cluster."""
        return self._workers.place(self._next_batch(task))

    def clustering_place(self, task: Task) -> ClusteringPlace:
        """Return where a task clusters: its shards are in the training workers if they hold the GPUs."""
        batch = self._next_batch(task)
        hosting = own_hosts if batch is None or not self._workers.holds_gpus else partial(self._workers.hosting, batch)
        return ClusteringPlace(self._clustering, hosting)

    def track_round(self, round: int, metrics: dict[str, float]) -> None:
        """Send metrics of a finished round."""
        if self._tracker:
            context = self._recording.tasks[0].context
            self._tracker.log_metrics(metrics, context.round_end(round))


class TrainingLogger:
    """A `MetricsCallback` that shows the loss and sends all metrics."""

    def __init__(
        self, progress: ProgressDisplay, tracker: Tracker | None, iterations: int, first: int, stage: str
    ) -> None:
        self._progress, self._tracker = progress, tracker
        self._iterations, self._first, self._stage = iterations, first, stage

    def __call__(self, iteration: int, metrics: dict[str, float]) -> None:
        """Show and send the metrics of an iteration of the training."""
        share = iteration / self._iterations
        self._progress.advance(share, f"iteration {iteration}/{self._iterations} · loss {metrics['loss']:.4f}")
        if self._tracker:
            named = {f"{self._stage}/{name}": value for name, value in metrics.items()}
            self._tracker.log_metrics(named, self._first + iteration)
