"""The model of `kplm bench scale` against real rounds, on one and on two CPU workers of this machine.

The rates are measured in the same call, and not on the rounds that are predicted: batches in memory, a core's time for a view,
one start of each kind, an all-reduce alone. Of the rounds themselves the prediction takes only how much there was to do: the
iterations that K-means needed until it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ray_kplm.bench.scale_measure import core_rates, link_rates, machine, network_rates, render_images
from ray_kplm.bench.scale_model import Cluster, Design, Model, Workload
from ray_kplm.bench.scale_rates import Rates, assumed_rates
from ray_kplm.bench.scale_starts import start_rates
from ray_kplm.bench.timing import process_pool
from ray_kplm.bench.train import rendered_dataset
from ray_kplm.config import Config, from_dict, load_config, with_overrides
from ray_kplm.experiments.trial import progress_to
from ray_kplm.pipeline import discover
from ray_kplm.progress import ProgressCallback, ignore_progress, part_of
from ray_kplm.run import MANIFEST, Run, round_path
from ray_kplm.runtime.session import session
from ray_kplm.schemas import TRAIN
from ray_kplm.storage import Folder

LAYOUTS = (1, 2)
"""Numbers of training workers of the rounds."""
STEPS = ("training", "extraction", "clustering", "starts")
"""What a round consists of; `starts` is what its other steps do not explain."""


@dataclass(frozen=True)
class Sizes:
    """The rounds that are run.

    Attributes:
        rounds: Number of rounds. The first one is left out, since its processes are new.
        iterations: Training iterations of a round.
    """

    rounds: int = 3
    iterations: int = 40


def validate(folder: str, sizes: Sizes, progress: ProgressCallback, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Predict and run rounds of the demo's configuration, with each number of workers.

    Args:
        folder: An empty local folder.
        sizes: Of the rounds.
        progress: Called before each measurement.
        overrides: Changes of the configuration.

    Returns:
        `validation_ratio_1_worker` and `validation_ratio_2_workers`: predicted by real seconds of a round; `validation`: the
        seconds of each step; `core_share_1_worker` and so on: the share of a core that a process got meanwhile.
    """
    configs = {workers: _config(workers, sizes, overrides) for workers in LAYOUTS}
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    with session(configs[LAYOUTS[-1]].compute):
        progress(0.0, "rendering images")
        size = configs[1].network.image_size
        dataset, images = rendered_dataset(folder, size), render_images(Folder.at(folder) / "some", size)
        for number, (workers, config) in enumerate(configs.items()):
            show = part_of(progress, 0.05 + 0.45 * number, 0.05 + 0.45 * (number + 1))
            name = f"{workers} worker{'s' * (workers > 1)}"
            show(0.0, f"{name}: the rates of cores, of the network and of starts")
            rates, share = _rates(config, workers, images, Path(folder) / f"rates{workers}")
            show(0.5, f"{name}: {sizes.rounds} rounds of {sizes.iterations} iterations")
            work = Workload.of(config, dataset.count(TRAIN))
            real = _real_rounds(config, str(dataset.root), f"{folder}/run{workers}")
            predicted = predicted_round(rates, work, workers, real.passes)
            rows += [
                {"workers": workers, "step": step, "predicted_s": predicted[step], "real_s": real.seconds[step]}
                for step in STEPS
            ]
            label = f"{workers}_worker{'s' * (workers > 1)}"
            figures[f"validation_ratio_{label}"] = sum(predicted.values()) / sum(real.seconds.values())
            figures[f"core_share_{label}"] = share
    progress(1.0, "all rounds")
    return {**figures, "validation": rows}


def validation_table(figures: dict[str, Any]) -> list[list[str]]:
    """Return the rows of a table of what `validate` found, with a heading."""
    table = [["workers", "step of a round", "predicted, s", "real, s", "ratio"]]
    for row in figures["validation"]:
        ratio = row["predicted_s"] / max(row["real_s"], 1e-9)
        table.append(
            [str(row["workers"]), row["step"], f"{row['predicted_s']:.2f}", f"{row['real_s']:.2f}", f"{ratio:.2f}"]
        )
    for workers in LAYOUTS:
        mine = [row for row in figures["validation"] if row["workers"] == workers]
        sums = [sum(row[name] for row in mine) for name in ("predicted_s", "real_s")]
        table.append([str(workers), "round", *(f"{value:.2f}" for value in sums), f"{sums[0] / sums[1]:.2f}"])
    return table


def predicted_round(rates: Rates, work: Workload, workers: int, passes: int) -> dict[str, float]:
    """Return the seconds of the steps of a round on CPU workers, of one thread each.

    Args:
        rates: Of this machine.
        work: The run.
        workers: Number of training workers, of processes that extract and of shards.
        passes: Iterations that K-means needs.
    """
    compute = work.config.compute
    cluster = Cluster(
        devices=workers,
        gpu=False,
        cores=(os.cpu_count() or 1) / workers,
        node_devices=workers,
        threads=compute.threads,
        feeders=compute.data_workers,
    )
    model = Model(rates, cluster, Design(fit_passes=passes))
    iterating = work.config.stage1.round_iterations * model.iteration(work, 1, workers).seconds
    return {
        "training": iterating,
        "extraction": model.extraction(work, 1).seconds,
        "clustering": model.clustering(work, 1).seconds,
        "starts": model.training(work, 1).serial + model.labels(work, 1).seconds,
    }


def _config(workers: int, sizes: Sizes, overrides: tuple[str, ...]) -> Config:
    """Return the demo's configuration with short rounds, and one thread for each worker."""
    return load_config(
        "demo",
        [
            f"compute.workers={workers}", f"compute.extract_workers={workers}", f"compute.shards={workers}",
            "compute.threads=1", f"stage1.warmup_iterations={sizes.iterations // 2}", f"stage1.rounds={sizes.rounds}",
            f"stage1.round_iterations={sizes.iterations}", "stage2.iterations=2", "keypoints.detector=orb",
            "method.mirror=partners", "method.drop_static=no", "visibility.images=16", "limits.min_points_per_image=0",
            "limits.min_image_share=0", *overrides,
        ],
    )  # fmt: skip


def _rates(config: Config, workers: int, images: Folder, folder: Path) -> tuple[Rates, float]:
    """Return the rates of this machine for a layout, and the share of a core that a process got.

    Rates of cores and of the network are of their processes' CPU time. Two processes are timed at a time, as two work in a
    round; what they get of a core is measured with them.
    """
    folder.mkdir()
    with process_pool(2, 1) as pool:
        cores, *networks = _together(pool, [(core_rates, config, images), (network_rates, config, images)])
        if workers > 1:
            networks = _together(pool, [(network_rates, config, images)] * workers)
    rates = assumed_rates({}).with_measured(_values([cores]) | _values(networks), machine())
    if workers > 1:
        parameters = Workload.of(config, 1).stage1.parameters
        with process_pool(workers, 1) as pool:
            calls = [
                pool.submit(link_rates, rank, workers, str(folder / "meeting"), parameters) for rank in range(workers)
            ]
            rates = rates.with_measured(calls[0].result(), machine())
    starts = start_rates(config, images, Folder.at(str(folder)) / "starts", ignore_progress)
    share = float(np.median([share for _, share in (cores, *networks)]))
    return rates.with_measured(starts, machine()), share


def _values(measured: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Return the means over processes of rates of CPU time, each times the share of a core that its process got."""
    each = []
    for of_one, share in measured:
        each.append({name: value / share if name == "trials" else value * share for name, value in of_one.items()})
    return {name: float(np.mean([of_one[name] for of_one in each])) for name in each[0]}


def _together(
    pool: ProcessPoolExecutor, calls: list[tuple[Callable[..., dict[str, float]], Config, Folder]]
) -> list[tuple[dict[str, float], float]]:
    """Return the results of functions that run at the same time, and the share of a core that each got."""
    list(pool.map(time.sleep, [0.2] * len(calls)))  # starts the processes
    return [future.result() for future in [pool.submit(_shared, *call) for call in calls]]


def _shared(
    function: Callable[[Config, Folder], dict[str, float]], config: Config, images: Folder
) -> tuple[dict[str, float], float]:
    """Return the result of a function, and the share of a core that it had."""
    began, worked = time.perf_counter(), time.process_time()
    result = function(config, images)
    return result, min(1.0, (time.process_time() - worked) / (time.perf_counter() - began))


@dataclass(frozen=True)
class _Real:
    """Real rounds: median seconds of the steps, and the mean iterations of K-means."""

    seconds: dict[str, float]
    passes: int


def _real_rounds(config: Config, dataset: str, folder: str) -> _Real:
    """Run the rounds of a configuration, and return what they took."""
    run, _ = discover(
        from_dict(with_overrides(config.to_dict(), [f"dataset={dataset}", f"run={folder}"])),
        progress_to(ignore_progress),
    )
    rounds = [_real_round(run, Path(folder), number) for number in range(1, config.stage1.rounds)]
    passes = [run.finished(f"{round_path(number)}/labels") for number in range(1, config.stage1.rounds)]
    return _Real(
        {step: float(np.median([seconds[step] for seconds in rounds])) for step in STEPS},
        round(np.mean([(facts["landmark_iterations"] + facts["cluster_iterations"]) / 2 for facts in passes])),
    )


def _real_round(run: Run, folder: Path, number: int) -> dict[str, float]:
    """Return the seconds from the end of a round's training to the end of the next one's, by step."""
    labels, train = run.finished(f"{round_path(number)}/labels"), run.finished(f"{round_path(number + 1)}/train")
    ended = [(folder / round_path(n) / "train" / MANIFEST).stat().st_mtime for n in (number, number + 1)]
    found = {
        "training": train["iterating_seconds"],
        "extraction": labels["extraction_seconds"],
        "clustering": labels["seconds"],
    }
    return {**found, "starts": ended[1] - ended[0] - sum(found.values())}
