"""`kplm bench scale`: how long a run would take on 1 to 64 GPUs, step by step, and what it would cost (docs/scaling.md)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ray_kplm.bench.scale_measure import core_rates, machine, render_images
from ray_kplm.bench.scale_model import Cluster, Design, Model, StepTime, Storage, Workload, total, weak_config
from ray_kplm.bench.scale_network import NetworkCost
from ray_kplm.bench.scale_rates import Rates, assumed_rates, read_rates
from ray_kplm.bench.scale_starts import start_rates
from ray_kplm.bench.scale_validation import Sizes, validate, validation_table
from ray_kplm.bench.timing import in_new_process
from ray_kplm.config import Config, load_config
from ray_kplm.errors import ConfigError
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.report.text_table import align
from ray_kplm.runtime.session import session
from ray_kplm.storage import Folder

_HOUR = 3600.0
_WEAK_IMAGES = 10**8
"""Images of the dataset on which weak efficiency is computed: enough for any round."""
_COMMAND = "kplm bench scale"


@dataclass(frozen=True)
class Question:
    """What is asked of the model.

    Attributes:
        config: The run's configuration.
        gpus: Numbers of GPUs, ascending.
        images: Numbers of training images, ascending.
        storages: Where dataset and run are.
        cores: Cores of a CPU beside each GPU.
        node_gpus: GPUs of a node.
        price: Of a GPU with its cores for an hour.
        design: How the code goes about it.
    """

    config: Config
    gpus: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    images: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7, 10**8)
    storages: tuple[Storage, ...] = ("disk", "s3")
    cores: float = 16.0
    node_gpus: int = 8
    price: float = 3.5
    design: Design = field(default_factory=Design)

    def cluster(self, gpus: int, storage: Storage) -> Cluster:
        """Return a cluster of some GPUs."""
        return Cluster(gpus, cores=self.cores, node_devices=self.node_gpus, storage=storage)


def bench(
    question: Question,
    progress: ProgressCallback,
    *,
    rates_file: str | None = None,
    save_rates: str | None = None,
    validated: bool = False,
) -> dict[str, Any]:
    """Answer a question by the model.

    Args:
        question: What is asked.
        progress: Called before each measurement.
        rates_file: A file of rates; None: they are measured.
        save_rates: Where the rates are written.
        validated: Whether the model is compared with real rounds on this machine too.

    Returns:
        `runs`: for each storage, number of images and number of GPUs the hours, the cost, the efficiency against one GPU
        (`strong_efficiency`), the serial share and the steps; `weak`: the efficiency where batches grow with the GPUs;
        `rates` with their origins; the figures of `validate`.

    Raises:
        ConfigError: The rates are unreadable, or the model does not know the configured method.
    """
    started = time.monotonic()
    if question.config.method.kind == "template":
        raise ConfigError(
            "method.kind = 'template': kplm bench scale knows the steps of kplm and merge; choose one of these"
        )
    share = 0.4 if validated else 1.0
    rates = (
        measured_rates(question.config, part_of(progress, 0.0, share)) if rates_file is None else read_rates(rates_file)
    )
    if save_rates is not None:
        rates.write(save_rates)
    figures = answer(question, rates)
    if validated:
        with tempfile.TemporaryDirectory() as folder:
            figures |= validate(folder, Sizes(), part_of(progress, share, 1.0))
    return {**figures, "seconds": time.monotonic() - started}


def measured_rates(config: Config, progress: ProgressCallback) -> Rates:
    """Measure what this machine can measure for a configuration, and assume the rest.

    The processes' starts are those of the demo's network, on which they hardly depend.
    """
    network = config.network
    measured_for = {name: getattr(network, name) for name in ("image_size", "width", "depth", "descriptor_dim")}
    with tempfile.TemporaryDirectory() as path:
        folder = Folder.at(path)
        progress(0.0, f"rendering images of {network.image_size} px")
        images = render_images(folder / "images", network.image_size)
        progress(0.1, "the rates of one core")
        cores = in_new_process(1, core_rates, config, images)
        small = load_config(
            "demo", ["compute.workers=1", "compute.extract_workers=1", "compute.threads=1", "compute.shards=1"]
        )
        with session(small.compute):
            starts = start_rates(small, images, folder / "starts", part_of(progress, 0.5, 1.0))
    source = f"{_COMMAND} on a core of {machine()}"
    return assumed_rates(measured_for).with_measured({**cores, **starts}, source)


def answer(question: Question, rates: Rates) -> dict[str, Any]:
    """Return the figures of the model: see `bench`."""
    first = Workload.of(question.config, question.images[0])
    runs = [
        run
        for storage in question.storages
        for images in question.images
        for run in _runs(question, rates, Workload(question.config, first.stage1, first.stage2, images), storage)
    ]
    return {
        "network": {"stage1": _network_figures(first.stage1), "stage2": _network_figures(first.stage2)},
        "price_per_gpu_hour": question.price,
        "runs": runs,
        "weak": _weak(question, rates, first),
        "rates": rates.to_dict()["rates"],
        "measured": rates.names("measured"),
        "assumed": rates.names("assumed"),
    }


def _runs(question: Question, rates: Rates, work: Workload, storage: Storage) -> list[dict[str, Any]]:
    """Return the figures of a run on each number of GPUs."""

    def steps(gpus: int) -> tuple[Model, list[StepTime]]:
        model = Model(rates, question.cluster(gpus, storage), question.design)
        return model, model.steps(work)

    one = total(steps(1)[1]).seconds
    found = []
    for gpus in question.gpus:
        model, parts = steps(gpus)
        run = total(parts)
        found.append(
            {
                "gpus": gpus,
                "images": work.images,
                "storage": storage,
                "training_workers": model.training_workers(work, min(1, work.config.stage1.rounds)),
                "hours": run.seconds / _HOUR,
                "cost": gpus * run.seconds / _HOUR * question.price,
                "strong_efficiency": one / run.seconds / gpus,
                "serial_share": run.serial / run.seconds,
                "longest_step": run.limit,
                "steps": [asdict(part) for part in parts],
            }
        )
    return found


def _weak(question: Question, rates: Rates, work: Workload) -> list[dict[str, Any]]:
    """Return the time of the run where every batch is multiplied by the number of GPUs, against that on one GPU."""

    def seconds(gpus: int) -> float:
        larger = Workload(weak_config(question.config, gpus), work.stage1, work.stage2, _WEAK_IMAGES)
        model = Model(rates, question.cluster(gpus, question.storages[0]), question.design)
        return total(model.steps(larger)).seconds

    one = seconds(1)
    return [
        {"gpus": gpus, "hours": taken / _HOUR, "weak_efficiency": one / taken}
        for gpus in question.gpus
        for taken in (seconds(gpus),)
    ]


def _network_figures(cost: NetworkCost) -> dict[str, float]:
    return {
        "forward_gflop": cost.forward / 1e9,
        "training_gflop": cost.train / 1e9,
        "parameters": cost.parameters,
        "launches": cost.launches,
    }


# -- as tables

_RATES = "Rates"
_LEFT = {_RATES: (0, 2, 3, 4)}
"""Columns of text in tables."""
Table = tuple[str, list[list[str]]]
"""A title, and rows with a heading."""


def lines(figures: dict[str, Any]) -> list[str]:
    """Return the figures as text tables."""
    return _laid_out(figures, lambda title, table: [title, *align(table, left=_LEFT.get(title, (0,))), ""])


def markdown(figures: dict[str, Any]) -> list[str]:
    """Return the figures as the tables of docs/scaling.md."""

    def laid_out(title: str, table: list[list[str]]) -> list[str]:
        rows = [f"| {' | '.join(row)} |" for row in table]
        return [f"{title}:", "", rows[0], f"|{'---|' * len(table[0])}", *rows[1:], ""]

    return _laid_out(figures, laid_out)


def _laid_out(figures: dict[str, Any], lay_out: Callable[[str, list[list[str]]], list[str]]) -> list[str]:
    tables = [*_run_tables(figures), (_RATES, _rate_table(figures))]
    if "validation" in figures:
        tables.append(("Predicted and real rounds on this machine", validation_table(figures)))
    return [line for title, table in tables for line in lay_out(title, table)]


def _run_tables(figures: dict[str, Any]) -> list[Table]:
    runs = figures["runs"]
    storages = list(dict.fromkeys(run["storage"] for run in runs))
    images = sorted({run["images"] for run in runs})
    shown = images[len(images) // 2]

    def of(storage: str, count: int) -> list[dict[str, Any]]:
        return [run for run in runs if run["storage"] == storage and run["images"] == count]

    middle = of(storages[0], shown)
    tables = [(f"Minutes by step, {shown:,} images, {storages[0]}", _step_table(middle))]
    tables.append((f"One run, {shown:,} images, {storages[0]}", _efficiency_table(middle, figures)))
    for storage in storages:
        heading = ["images", *(f"{run['gpus']} GPU" for run in middle)]
        rows = [[f"{count:,}", *(f"{run['hours']:.1f}" for run in of(storage, count))] for count in images]
        tables.append((f"Hours, {storage}", [heading, *rows]))
    return tables


def _step_table(runs: list[dict[str, Any]]) -> list[list[str]]:
    table = [["step", *(f"{run['gpus']} GPU" for run in runs), "serial at most", "limit at least", "limit at most"]]
    for number, step in enumerate(runs[0]["steps"]):
        mine = [run["steps"][number] for run in runs]
        minutes = [f"{one['seconds'] / 60:.1f}" for one in mine]
        serial = f"{mine[-1]['serial'] / max(mine[-1]['seconds'], 1e-9):.0%}"
        table.append([step["name"], *minutes, serial, mine[0]["limit"], mine[-1]["limit"]])
    return table


def _efficiency_table(runs: list[dict[str, Any]], figures: dict[str, Any]) -> list[list[str]]:
    table = [["GPUs", "training workers", "hours", "strong efficiency", "weak efficiency", "serial share", "cost"]]
    for run, weak in zip(runs, figures["weak"], strict=True):
        shares = [f"{value:.0%}" for value in (run["strong_efficiency"], weak["weak_efficiency"], run["serial_share"])]
        table.append(
            [str(run["gpus"]), str(run["training_workers"]), f"{run['hours']:.1f}", *shares, f"{run['cost']:,.0f}"]
        )
    return table


def _rate_table(figures: dict[str, Any]) -> list[list[str]]:
    rows = [
        [name, f"{rate['value']:,.4g}", rate["unit"], rate["origin"], rate["source"]]
        for name, rate in figures["rates"].items()
    ]
    return [["rate", "value", "unit", "origin", "source"], *rows]
