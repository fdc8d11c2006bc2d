"""Rules between the values of a configuration, one function for each section. The ranges of single values stand at the fields.

`Config` checks both however it is made, the ranges first. A rule says what is wrong and how to mend it; the error is one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ray_kplm.errors import ConfigError
from ray_kplm.ranges import check_ranges
from ray_kplm.redaction import has_credentials, way_out

if TYPE_CHECKING:
    from ray_kplm.config import ComputeConfig, Config


class Rule(NamedTuple):
    """One check of one value."""

    path: str
    """Dotted path of the value, for example `stage1.batch_size`."""
    value: Any
    """The value, as the error shows it."""
    text: str
    """What holds of a valid value, and the way out."""
    holds: bool
    """Whether it holds."""


def check_rules(config: Config) -> None:
    """Raise ConfigError for the first value that is out of its range, or the first rule that does not hold."""
    check_ranges(config)
    for path, value, text, holds in all_rules(config):
        if not holds:
            raise ConfigError(f"{path} = {value!r}: {text}")


def all_rules(config: Config) -> Iterator[Rule]:
    """Yield the rules of all sections."""
    for rules in (
        _uri_rules,
        _method_rules,
        _network_rules,
        _keypoints_rules,
        _augment_rules,
        _compute_rules,
        _stage1_rules,
        _stage2_rules,
    ):
        yield from rules(config)


def _uri_rules(c: Config) -> Iterator[Rule]:
    for path, value in c.flat().items():
        if isinstance(value, str) and "://" in value:
            yield Rule(path, value, way_out(value), not has_credentials(value))


def _method_rules(c: Config) -> Iterator[Rule]:
    landmarks, clusters = c.method.landmarks, c.method.clusters
    yield Rule(
        "method.clusters",
        clusters,
        f"must be at least method.landmarks = {landmarks}, or auto; the thesis uses 100",
        clusters == 0 or landmarks <= clusters,
    )


def _network_rules(c: Config) -> Iterator[Rule]:
    network, compute = c.network, c.compute
    size = network.image_size
    step = 4 * 2**network.depth
    yield Rule(
        "network.image_size",
        size,
        f"must be a multiple of {step} (4 x 2^network.depth), at least twice; {max(2, round(size / step)) * step} is near",
        size >= 2 * step and size % step == 0,
    )
    yield Rule(
        "network.width",
        network.width,
        "must be a multiple of 16",
        network.width % 16 == 0,
    )
    yield Rule(
        "network.norm",
        network.norm,
        "on CPUs its statistics would be of the share that each of compute.workers = "
        f"{_shown_workers(compute)} has of a batch: take network.norm=group, compute.workers=1 or compute.gpus_per_worker=1",
        network.norm != "batch" or compute.worker_range.max <= 1 or compute.gpus_per_worker > 0,
    )


def _keypoints_rules(c: Config) -> Iterator[Rule]:
    k = c.keypoints
    yield Rule(
        "keypoints.scales",
        list(k.scales),
        "must be one factor or more; [1.0] is the image as it is",
        bool(k.scales),
    )
    yield Rule(
        "keypoints.file",
        k.file,
        "keypoints.detector = 'file' needs the Parquet file of your keypoints",
        bool(k.file) or k.detector != "file",
    )
    yield Rule(
        "keypoints.detector",
        k.detector,
        "has no descriptors, and method.kind = 'merge' begins with clusters of them; take sift, superpoint, aliked or r2d2",
        c.method.kind != "merge" or k.detector not in ("file", "noisy_gt"),
    )


def _augment_rules(c: Config) -> Iterator[Rule]:
    extra = c.augment.extra
    yield Rule(
        "augment.extra",
        extra,
        "must end with .json, .yaml or .yml, as albumentations.save writes them",
        not extra or extra.endswith((".json", ".yaml", ".yml")),
    )


def _stage1_rules(c: Config) -> Iterator[Rule]:
    yield from _training_rules(c, "stage1")


def _stage2_rules(c: Config) -> Iterator[Rule]:
    training = c.stage2.training
    yield from _training_rules(c, "stage2")
    yield Rule(
        "stage2.training",
        training,
        "joint training is of method.kind = 'kplm', and of a round at least",
        training != "joint" or (c.method.kind == "kplm" and c.stage1.rounds > 0),
    )


def _training_rules(c: Config, stage: str) -> Iterator[Rule]:
    """Yield what both stages have in common: the batch is divided among the workers."""
    section = getattr(c, stage)
    yield Rule(
        f"{stage}.batch_size",
        section.batch_size,
        f"is shared by compute.workers = {_shown_workers(c.compute)}: take a multiple of it, or compute.scale_lr=true",
        c.compute.scale_lr or bool(c.compute.worker_numbers(section.batch_size)),
    )


def _compute_rules(c: Config) -> Iterator[Rule]:
    compute = c.compute
    workers, shown = compute.worker_range, _shown_workers(compute)
    yield Rule("compute.workers", shown, "min must not be above max", workers.min <= workers.max)
    yield Rule(
        "compute.workers",
        shown,
        "must be one number with compute.scale_lr=true, whose iterations depend on it",
        not (compute.scale_lr and compute.is_elastic),
    )
    gpus, cpus = compute.gpus_per_worker, compute.cpus_per_worker
    yield Rule(
        "compute.gpus_per_worker",
        gpus,
        f"two of compute.workers = {shown} may land on one GPU, which NCCL refuses: take 1, or compute.workers=1",
        not 0 < gpus < 1 or workers.max <= 1,
    )
    yield Rule(
        "compute.gpus_per_worker", gpus, "must be whole above 1: Ray gives no other", gpus <= 1 or gpus == int(gpus)
    )
    yield Rule(
        "compute.cpus_per_worker",
        cpus,
        "must be positive where compute.gpus_per_worker = 0: a worker that reserves nothing finds no place",
        cpus > 0 or gpus > 0,
    )


def _shown_workers(compute: ComputeConfig) -> int | str:
    """Return `compute.workers` as errors show it."""
    workers = compute.worker_range
    return f"{{min: {workers.min}, max: {workers.max}}}" if compute.is_elastic else workers.min
