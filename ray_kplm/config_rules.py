"""Rules between the values of a configuration, and ranges of single values: one function for each section.

`Config` checks them however it is made. A rule says what is wrong and how to mend it; the error that is raised is one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ray_kplm.errors import ConfigError
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
    """Raise ConfigError for the first rule that does not hold."""
    for path, value, text, holds in all_rules(config):
        if not holds:
            raise ConfigError(f"{path} = {value!r}: {text}")


def all_rules(config: Config) -> Iterator[Rule]:
    """Yield the rules of all sections."""
    for rules in (
        _uri_rules,
        _features_rules,
        _method_rules,
        _network_rules,
        _keypoints_rules,
        _augment_rules,
        _compute_rules,
        _stage1_rules,
        _stage2_rules,
        _detection_rules,
        _clustering_rules,
        _merging_rules,
        _template_rules,
    ):
        yield from rules(config)


def _uri_rules(c: Config) -> Iterator[Rule]:
    for path, value in c.flat().items():
        if isinstance(value, str) and "://" in value:
            yield Rule(path, value, way_out(value), not has_credentials(value))


def _features_rules(c: Config) -> Iterator[Rule]:
    share = c.features_share
    yield Rule(
        "features_share", share, "is a share: 0 <= share <= 1; 0 clusters learnt descriptors alone", 0 <= share <= 1
    )


def _method_rules(c: Config) -> Iterator[Rule]:
    landmarks, clusters = c.method.landmarks, c.method.clusters
    yield Rule("method.landmarks", landmarks, "must be at least 2, or auto", landmarks == 0 or landmarks >= 2)
    yield Rule(
        "method.clusters",
        clusters,
        f"must be at least method.landmarks = {landmarks}, or auto; the thesis uses 100",
        clusters == 0 or max(landmarks, 2) <= clusters <= 32_767,  # stored as int16
    )


def _network_rules(c: Config) -> Iterator[Rule]:
    network, compute = c.network, c.compute
    size = network.image_size
    step = 4 * 2**network.depth
    yield Rule("network.depth", network.depth, "must be at least 1", network.depth >= 1)
    yield Rule(
        "network.image_size",
        size,
        f"must be a multiple of {step} (4 x 2^network.depth), at least twice; {max(2, round(size / step)) * step} is near",
        size >= 2 * step and size % step == 0,
    )
    yield Rule(
        "network.width",
        network.width,
        "must be a positive multiple of 16",
        network.width > 0 and network.width % 16 == 0,
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
    yield _at_least("keypoints.limit", k.limit, 1)
    yield Rule("keypoints.outlier_share", k.outlier_share, "is a share: 0 <= share < 1", 0 <= k.outlier_share < 1)
    yield Rule("keypoints.nms", k.nms, "is a share of the image's side: 0 <= share < 1", 0 <= k.nms < 1)
    yield Rule(
        "keypoints.scales",
        list(k.scales),
        "must be one factor or more within 0.1 and 10; [1.0] is the image as it is",
        bool(k.scales) and all(0.1 <= scale <= 10 for scale in k.scales),
    )
    yield Rule("keypoints.truth_share", k.truth_share, "is a share: 0 <= share <= 1", 0 <= k.truth_share <= 1)
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
    warp = c.augment.warp
    yield Rule("augment.warp", warp, "must be within 0 and 0.08: more may fold pictures", 0 <= warp <= 0.08)
    for name, most in (("paste", 1.0), ("paste_shift", 0.5)):
        value = getattr(c.augment, name)
        yield Rule(f"augment.{name}", value, f"is a share: within 0 and {most}", 0 <= value <= most)


def _stage1_rules(c: Config) -> Iterator[Rule]:
    yield from _training_rules(c, "stage1")
    yield _at_least("stage1.warmup_iterations", c.stage1.warmup_iterations, 1)
    yield _at_least("stage1.rounds", c.stage1.rounds, 0)
    yield _at_least("stage1.round_iterations", c.stage1.round_iterations, 1)


def _stage2_rules(c: Config) -> Iterator[Rule]:
    training = c.stage2.training
    yield from _training_rules(c, "stage2")
    yield _at_least("stage2.iterations", c.stage2.iterations, 1)
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
        f"is shared by compute.workers = {_shown_workers(c.compute)}: take a positive multiple of it, or compute.scale_lr=true",
        section.batch_size > 0 and (c.compute.scale_lr or bool(c.compute.worker_numbers(section.batch_size))),
    )
    rate = section.learning_rate
    yield Rule(f"{stage}.learning_rate", rate, "must be positive", rate > 0)


def _detection_rules(c: Config) -> Iterator[Rule]:
    detection = c.detection
    yield _at_least("detection.calibration_images", detection.calibration_images, 1)
    yield _at_least("detection.nms_radius", detection.nms_radius, 1)
    for name in ("warmup_points_per_landmark", "points_per_landmark"):
        points = getattr(detection, name)
        yield Rule(f"detection.{name}", points, "must be positive; 2 keeps 2 x K points an image", points > 0)


def _clustering_rules(c: Config) -> Iterator[Rule]:
    clustering = c.clustering
    yield _at_least("clustering.n_init", clustering.n_init, 1)
    yield _at_least("clustering.iterations", clustering.iterations, 1)
    yield Rule("clustering.memory_gib", clustering.memory_gib, "must be positive", clustering.memory_gib > 0)


def _merging_rules(c: Config) -> Iterator[Rule]:
    merging = c.merging
    yield _at_least("merging.every", merging.every, 1)
    yield Rule("merging.distance", merging.distance, "must be positive, in heatmap cells", merging.distance > 0)
    yield Rule("merging.overlap", merging.overlap, "is a share: 0 < share <= 1", 0 < merging.overlap <= 1)


def _template_rules(c: Config) -> Iterator[Rule]:
    t = c.template
    yield _at_least("template.rounds", t.rounds, 1)
    yield _at_least("template.candidates", t.candidates, 1)
    yield Rule("template.outliers", t.outliers, "is a share: 0 < share < 1", 0 < t.outliers < 1)
    yield Rule("template.min_matched", t.min_matched, "is a share: 0 <= share <= 1", 0 <= t.min_matched <= 1)
    yield Rule("template.distance", t.distance, "must be positive, a share of the side", t.distance > 0)


def _compute_rules(c: Config) -> Iterator[Rule]:
    compute = c.compute
    workers, shown = compute.worker_range, _shown_workers(compute)
    yield Rule("compute.workers", shown, "must be at least 1", workers.min >= 1)
    yield Rule("compute.workers", shown, "min must not be above max", workers.min <= workers.max)
    yield Rule(
        "compute.workers",
        shown,
        "must be one number with compute.scale_lr=true, whose iterations depend on it",
        not (compute.scale_lr and compute.is_elastic),
    )
    gpus, cpus = compute.gpus_per_worker, compute.cpus_per_worker
    yield Rule("compute.gpus_per_worker", gpus, "must not be negative; 0 trains on CPUs", gpus >= 0)
    yield Rule(
        "compute.gpus_per_worker",
        gpus,
        f"two of compute.workers = {shown} may land on one GPU, which NCCL refuses: take 1, or compute.workers=1",
        not 0 < gpus < 1 or workers.max <= 1,
    )
    yield Rule(
        "compute.gpus_per_worker", gpus, "must be whole above 1: Ray gives no other", gpus <= 1 or gpus == int(gpus)
    )
    yield Rule("compute.cpus_per_worker", cpus, "must not be negative", cpus >= 0)
    yield Rule(
        "compute.cpus_per_worker",
        cpus,
        "must be positive where compute.gpus_per_worker = 0: a worker that reserves nothing finds no place",
        cpus > 0 or gpus > 0,
    )
    for name in ("data_workers", "extract_workers", "checkpoint_iterations", "batch_images", "rounds_per_fit"):
        yield _at_least(f"compute.{name}", getattr(compute, name), 1)
    for name, least in (
        ("threads", "must be at least 1, or 0 for a share of the cores"),
        ("detect_workers", "must be at least 1, or 0 for one a core"),
        ("shards", "must be at least 1, or 0 for one a node"),
        ("max_failures", "must be at least 0, which restarts nothing"),
    ):
        value = getattr(compute, name)
        yield Rule(f"compute.{name}", value, least, value >= 0)


def _at_least(path: str, value: int, least: int) -> Rule:
    return Rule(path, value, f"must be at least {least}", value >= least)


def _shown_workers(compute: ComputeConfig) -> int | str:
    """Return `compute.workers` as errors show it."""
    workers = compute.worker_range
    return f"{{min: {workers.min}, max: {workers.max}}}" if compute.is_elastic else workers.min
