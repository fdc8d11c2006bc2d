"""The one configuration tree: every default, its unit and its source.

`load("faces_cpu", ["dataset=DIR", "method.landmarks=20"])` reads YAML and dotted overrides into a frozen
`Config`. Unknown keys, wrong types and broken rules are a `ConfigError` that names the path.

Sources: T is the thesis (Mallis 2023, chapter 6 unless said otherwise), R the authors' released code.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from ray_kplm import config_parsing, ready_configs
from ray_kplm.errors import ConfigError


@dataclass(frozen=True)
class MethodConfig:
    """What is discovered, and by which variant of the method."""

    kind: Literal["kplm", "merge", "template"] = "kplm"
    """Method: `kplm` is chapter 6, `merge` chapter 5, `template` chapter 4."""
    landmarks: int = 30
    """K, the number of landmarks (T 6.2). In `template` at most so many: fewer where the template's image has fewer points. In
    `merge` K is what merging leaves, and this only scales how many keypoints are detected."""
    clusters: int = 100
    """M, the training clusters; many more than K, so that one landmark may look several ways (T 6.3.3)."""
    flip: bool = True
    """Mirror images in training, with the correspondence recovered by clustering (T 6.1.8)."""
    flip_map: Literal["pairs", "argmax"] = "pairs"
    """Mirror partners of the landmarks in stage 2: `argmax` of the flip counts (T, R), or `pairs`, one to one, and none where
    the counts do not agree."""
    drop_static: bool = False
    """Leave out keypoints of landmarks that stand still over the images: background (T 7.1)."""


@dataclass(frozen=True)
class NetworkConfig:
    """The hourglass (T 2.3, docs/method.md 1)."""

    image_size: int = 256
    """S, side of the network's square input, pixels; the heatmap has S / 4 cells a side."""
    width: int = 256
    """Channels of the hourglass; the stem has a quarter and a half of it."""
    depth: int = 4
    """Times the hourglass halves its S / 4 grid."""
    descriptor_dim: int = 256
    """d, width of a descriptor."""
    norm: Literal["group", "batch"] = "group"
    """Group norm beats batch norm under label noise (T 4.2.3). `batch` takes its statistics over the whole batch: with several
    training workers on GPUs only."""
    groups: int = 32
    """Groups of a group norm; layers whose width they do not divide use the greatest common divisor."""


@dataclass(frozen=True)
class KeypointsConfig:
    """The generic keypoints that start the method (T 6.3.4)."""

    detector: Literal["sift", "orb", "superpoint", "aliked", "r2d2", "file", "noisy_gt"] = "sift"
    """`sift`, `orb`: with adaptive non-maximal suppression. `superpoint`, `aliked`, `r2d2`: pretrained networks. `file`: your
    own. `noisy_gt`: annotated points among random ones, for experiments on noise (T Fig. 6.5)."""
    limit: int = 50
    """Most keypoints of an image after suppression."""
    weights: str = ""
    """Of a pretrained network: its file; for `superpoint` a folder or a hub name."""
    confidence: float = 0.0
    """Least score of a pretrained network's point; 0: its authors' (superpoint 0.15, T; aliked 0.2; r2d2 0.7)."""
    nms: float = 0.037
    """A pretrained network's points are no closer than this share of the image's longer side (T 8 px of 218)."""
    image_size: int = 0
    """Longer side of the image that a pretrained network sees, pixels; 0: as it is stored."""
    scales: tuple[float, ...] = (1.0,)
    """A pretrained network sees the image enlarged by each of these factors; its points are pooled (T 5.3.2: 1, 1.3, 1.6)."""
    file: str = ""
    """Parquet for `file`: image_id, xy (a list of (x, y), pixels of the source image), optionally score."""
    truth_share: float = 0.4
    """Share of true points in `noisy_gt`; the others lie anywhere."""
    truth_shift: float = 0.012
    """True points are moved by up to this share of the image's longer side, each way (T 3 px of 256)."""
    outlier_share: float = 0.4
    """Share of keypoints dropped as unlike all others (R); 0 keeps all."""
    outlier_sample: int = 30_000
    """Descriptors in the index that says what is common."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random views in training (R, docs/method.md 3). Ranges are (low, high)."""

    scale: tuple[float, float] = (0.8, 1.2)
    """Zoom factor."""
    translate: float = 0.05
    """Shift, up to this share of the side, each way."""
    rotate: float = 40.0
    """Rotation, up to this many degrees, each way."""
    brightness: tuple[float, float] = (0.9, 1.1)
    """Factor on all values."""
    contrast: tuple[float, float] = (0.85, 1.3)
    """Factor on the distance from the mean grey."""
    saturation: tuple[float, float] = (0.5, 1.5)
    """Factor on the saturation, in `colour_share` of the views."""
    hue: tuple[float, float] = (-0.04, 0.04)
    """Shift of the hue, share of the circle, in `colour_share` of the views."""
    colour_share: float = 0.3
    """Share of views whose hue and saturation change."""
    blur: float = 0.5
    """Largest sigma of the Gaussian blur, pixels."""
    blur_share: float = 0.3
    """Share of views blurred."""
    noise: float = 0.05
    """Largest standard deviation of additive Gaussian noise, share of full scale; half of it per channel."""
    noise_share: float = 0.5
    """Share of views with noise."""
    warp: float = 0.0
    """Smooth warp: a 4 x 4 lattice moves by up to this share of the side, each way (none in T and R). Without it a network can
    know parts by their layout, which fails when an object turns."""


@dataclass(frozen=True)
class Stage1Config:
    """Self-training of detector and descriptors in rounds (T Algorithm 2, 6.2.1)."""

    warmup_iterations: int = 30_000
    """Equivariance: pairs are two views of one image, a keypoint corresponds to itself (T 6.1.5)."""
    rounds: int = 34
    """Rounds after the warm-up; 34 x 5,000 + 30,000 are T's 200,000 iterations."""
    round_iterations: int = 5_000
    """Iterations between two updates of the pseudo-labels."""
    batch_size: int = 16
    """Pairs in a batch, over all workers."""
    learning_rate: float = 2e-4
    """RMSprop (T 2e-4, R 1e-4)."""
    weight_decay: float = 1e-5
    """RMSprop (T, R)."""
    decay: Literal["steps", "cosine"] = "steps"
    """How the learning rate falls. `steps`: at `decay_at`. `cosine`: in the warm-up and in each round anew, to 1 % of it (R,
    chapter 5)."""
    decay_at: tuple[float, ...] = (0.75, 0.9)
    """Learning rate x 0.1 when these shares of all stage-1 iterations are done (R 150k and 180k of 200k); in `template`, whose
    rounds train from nothing, these shares of each. `decay: cosine` does not use it."""
    descriptor_weight: float = 10.0
    """Weight of the descriptor loss against the detector's (R)."""
    correspondence: Literal["clustering", "equivariance"] = "clustering"
    """What a round's positives are: points of one cluster, in two images; or, for comparison, a point and itself in two views
    of one image, as in the warm-up (T Table 6.3)."""
    negatives: Literal["auto", "same_image", "different_cluster"] = "auto"
    """What a round's negatives are. `same_image`: the other points and random cells of the same image, chapter 6.
    `different_cluster`: points of other clusters in all images of the batch, chapter 5 (T Table 6.3). `auto`: as the generation
    has it."""
    positives: Literal["pair", "batch"] = "pair"
    """Where a round finds corresponding points: in the pair's other image (R), or in all images of the batch, which gives some
    ten times as many and matters when training is short. The warm-up's identities hold in a pair only."""
    pair_weighting: Literal["all", "balanced"] = "all"
    """`all`: mean over all pairs together (R). `balanced`: mean of positives plus mean of negatives."""
    margin: float = 0.8
    """Distance at which a negative pair costs nothing (R)."""
    negative_pairs: int = 5_000
    """Negative pairs of an image: all of its own points, and as many with random cells as fill them up (R)."""
    negative_distance: float = 0.09
    """Closer points are no negatives; share of the heatmap's side (R 5.7 of 64 cells)."""
    heatmap_sigma: float = 0.0
    """Sigma of a target's Gaussian, cells; 0 marks a single cell (R)."""
    same_image_share: float = 0.0
    """Share of a round's pairs that are two views of one image."""
    frame_gap: int = 5
    """Where the dataset has sequences, pairs that are two views of one image (the warm-up's) become two frames at most so far
    apart, with the correspondence of dense optical flow (T 6.2.1, for videos; 5: Zhang et al. 2018). 0: they stay."""


@dataclass(frozen=True)
class DetectionConfig:
    """From heatmaps to keypoints when pseudo-labels are renewed (docs/method.md 3, step 1)."""

    threshold: Literal["calibrated", "fixed"] = "calibrated"
    """`calibrated`: each round picks the threshold that keeps `points_per_landmark` x K points an image."""
    fixed_threshold: float = 0.15
    """Of the sigmoid heatmap, when `threshold: fixed` (R). Small or briefly trained networks peak far below it."""
    warmup_points_per_landmark: float = 2.0
    """Calibrated points an image after the warm-up, relative to K. What clustering does not see then is lost; on faces 3 and
    more put nose and mouth into one cluster, which 1.5 and 2 kept apart."""
    points_per_landmark: float = 2.0
    """Calibrated points an image in the rounds, relative to K; duplicates among them are dropped later. The detector has learnt
    some K places by then: much more than K points are noise."""
    calibration_images: int = 500
    """Seeded sample of images on which the threshold is chosen."""
    nms_radius: int = 2
    """A keypoint is the maximum of (2 r + 1)^2 cells (R)."""
    limit: int = 200
    """Most keypoints of an image."""


@dataclass(frozen=True)
class ClusteringConfig:
    """K-means over descriptors (T 6.1.2, docs/method.md 3)."""

    iterations: int = 100
    """Most Lloyd iterations (R)."""
    tolerance: float = 1e-4
    """A fit ends when the objective falls by less than this share."""
    n_init: int = 10
    """k-means++ starts, each fitted on a sample; the best is fitted on all. A bad one loses landmarks for good (R: 10, without
    effect)."""
    fit_points: int = 1_600_000
    """Descriptors fitted on, a seeded sample (R: the first 800,000 keypoints' plain and mirrored ones); 0: all."""
    start_sample: int = 25_000
    """Descriptors on which the starts are tried."""
    spherical: bool = False
    """Centroids of unit length."""
    memory_gib: float = 1.0
    """Memory of a shard; the descriptors that do not fit are read again in each pass. Less than 0.3 is not kept to:
    libraries and the part that is being read take so much."""


@dataclass(frozen=True)
class Stage2Config:
    """The landmark detector of K channels (T 6.1.7, docs/method.md 4)."""

    training: Literal["separate", "joint"] = "separate"
    """`separate`: after stage 1. `joint`: in stage 1's rounds, by a third head of the same network; no stage 2 of its own, and
    of what follows only `heatmap_sigma` and `flip_at_test` matter (T 7.2; `method.kind: kplm`)."""
    joint_weight: float = 1.0
    """Of the landmark head's loss in joint training."""
    iterations: int = 200_000
    """Iterations (R)."""
    batch_size: int = 16
    """Images in a batch, over all workers."""
    learning_rate: float = 2e-4
    """Of the landmark head, RMSprop."""
    backbone_factor: float = 0.1
    """Learning rate of the backbone against the head's (R); `template`, whose detectors start from nothing, does not use it."""
    weight_decay: float = 1e-5
    """RMSprop (T, R)."""
    decay_at: tuple[float, ...] = (0.25, 0.35)
    """Learning rate x 0.1 when these shares of the iterations are done (R 50k and 70k of 200k); in `template`, whose detectors
    train from nothing, these shares of each one's."""
    heatmap_sigma: float = 0.75
    """Sigma of a target's Gaussian, cells (R: a 3 x 3 stamp 1 / .41 / .17, which is sigma 0.75)."""
    flip_at_test: bool = True
    """Average the heatmaps of an image and of its mirror (T Table 6.5)."""


@dataclass(frozen=True)
class MergingConfig:
    """Channels of stage 2 that become one, in `method.kind: merge` (T 5.2.2, 5.3.2)."""

    every: int = 25_000
    """Iterations of stage 2 between two merges (R)."""
    min_points: int = 500
    """Clusters with fewer points in the last round's labels get no channel (R)."""
    confidence: float = 0.2
    """A channel fires in an image when its peak is above this (R)."""
    distance: float = 1.0
    """Two channels are at one place within so many cells (T 1 of 64; R 5.7 px of 256)."""
    overlap: float = 0.7
    """Two become one when they are at one place in more than this share of the images in which the rarer one fires (T, R)."""


@dataclass(frozen=True)
class TemplateConfig:
    """Correspondence with the points of one image, in `method.kind: template` (T 4.2.4, docs/method.md 6)."""

    image: str = ""
    """image_id of the training image whose points are the template; empty: the one whose points the others have most often. Of
    its points the `method.landmarks` that most images have are kept (T: 13 points of a face)."""
    candidates: int = 30
    """Images that are tried as templates where none is named."""
    sample: int = 150
    """Images on which each is tried, and which tell what points of the template are kept."""
    distance: float = 0.1
    """A point farther from where its template point drifted is another one; share of the image's side."""
    outliers: float = 0.1
    """Share of an image's points that are expected to belong to no template point."""
    min_matched: float = 0.5
    """Images in which a smaller share of the template's points is found are left out."""
    distil_from: int = 5
    """First round whose detector looks at several views of an image (T)."""
    rounds: int = 3
    """Detectors of K channels, one after the other, each on what the one before found; each has its share of
    `stage2.iterations` (T)."""
    confidence: float = 0.2
    """A landmark found with less is no label for the next detector."""


@dataclass(frozen=True)
class WorkerRange:
    """As many training workers as the cluster has room for when a training step begins."""

    min: int = 1
    """The step waits until there is room for so many."""
    max: int = 1
    """No more than these."""


@dataclass(frozen=True)
class ComputeConfig:
    """How the work is laid out. Nothing here but `scale_lr` changes what is computed, but for rounding: the gradients of any
    number of training workers are those of the whole batch in one process."""

    workers: int | WorkerRange = 1
    """Ray Train workers (processes of DDP); `{min: 1, max: 8}`: of the numbers that divide the batch, the largest that the
    cluster has room for when a training step begins."""
    gpus_per_worker: float = 0.0
    """GPUs of a training worker, of an extraction worker and of a K-means shard; 0: CPU. A fraction shares a GPU between one
    training worker and what extracts or clusters beside it: several training workers need whole ones (NCCL)."""
    cpus_per_worker: float = 1.0
    """CPUs that a training worker and an extraction worker reserve in Ray; 0 is for workers with a GPU."""
    threads: int = 0
    """Threads of a training worker or of a K-means shard; 0: its node's cores shared by those on the node."""
    data_workers: int = 1
    """Ray Data tasks at a time that decode and augment, for each training worker."""
    extract_workers: int = 1
    """Processes that run the network at a time when features are extracted."""
    detect_workers: int = 0
    """Processes that find generic keypoints at a time; 0: one a core."""
    shards: int = 0
    """Actors over which K-means is spread; 0: one a node, or one a GPU where GPUs are used."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast; `auto`: bf16 on GPUs and on CPUs that multiply it, decided for the whole run by the driver that begins it."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory format; `auto`: on GPUs only, decided as `precision` is."""
    scale_lr: bool = False
    """R's rule for W workers: `batch_size` for each, learning rate x W, iterations / W. Off: one batch is shared."""
    checkpoint_iterations: int = 250
    """Iterations between checkpoints inside a training step."""
    rounds_per_fit: int = 1
    """Trainings (the warm-up, a round, stage 2) that the same worker processes do one after the other. More than one saves
    their start, some 7 s each; in between they keep their CPUs and GPUs: extraction needs others, or a share of a single
    worker's GPU."""
    max_failures: int = 3
    """Times a training step is restarted from its last checkpoint after a worker died."""
    batch_images: int = 64
    """Images at a time in extraction and prediction."""

    @property
    def worker_range(self) -> WorkerRange:
        """Fewest and most training workers."""
        return self.workers if isinstance(self.workers, WorkerRange) else WorkerRange(self.workers, self.workers)

    @property
    def is_elastic(self) -> bool:
        """Whether the number of training workers depends on the cluster."""
        return isinstance(self.workers, WorkerRange)

    def worker_numbers(self, batch: int) -> list[int]:
        """The numbers of training workers that can share a batch, ascending."""
        bounds = self.worker_range
        return [n for n in range(max(bounds.min, 1), bounds.max + 1) if batch % n == 0]


@dataclass(frozen=True)
class RunLimits:
    """When a round is beyond rescue (guards against collapse)."""

    min_points_per_image: float = 2.0
    """Fewer pseudo-labels an image on average stop the run."""
    min_image_share: float = 0.1
    """A smaller share of images with at least two points stops the run."""


@dataclass(frozen=True)
class Config:
    """Everything a run is made of."""

    dataset: str = ""
    """What `kplm ingest` made: a folder or a URI."""
    run: str = ""
    """The run directory: a folder or a URI."""
    seed: int = 0
    """Of every random choice."""
    round_images: int = 0
    """Images drawn for a round; 0: as many as its iterations can use, all if fewer."""
    keep_features: bool = False
    """Keep each round's descriptors, which are otherwise deleted once clustered."""
    method: MethodConfig = field(default_factory=MethodConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    keypoints: KeypointsConfig = field(default_factory=KeypointsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    merging: MergingConfig = field(default_factory=MergingConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    limits: RunLimits = field(default_factory=RunLimits)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        for path, value, rule, holds in _rules(self):
            if not holds:
                raise ConfigError(f"{path} = {value!r}: {rule}")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, as YAML holds them."""
        return _plain(dataclasses.asdict(self))

    def flat(self) -> dict[str, Any]:
        """Dotted path -> value."""
        return dict(_flatten(self.to_dict(), ""))


def _rules(c: Config) -> Iterable[tuple[str, Any, str, bool]]:
    """Cross-field and range checks: path, value, the rule and the way out, whether it holds."""
    grid = 4 * 2**c.network.depth
    size = c.network.image_size
    yield "method.landmarks", c.method.landmarks, "must be at least 2", c.method.landmarks >= 2
    yield (
        "method.clusters",
        c.method.clusters,
        f"must be at least method.landmarks = {c.method.landmarks}; the thesis uses 100",
        c.method.landmarks <= c.method.clusters <= 32_767,
    )
    yield "network.depth", c.network.depth, "must be at least 1", c.network.depth >= 1
    yield (
        "network.image_size",
        size,
        f"must be a multiple of {grid} (4 x 2^network.depth), at least twice; {max(2, round(size / grid)) * grid} is near",
        size >= 2 * grid and size % grid == 0,
    )
    yield (
        "network.width",
        c.network.width,
        "must be a positive multiple of 16",
        c.network.width > 0 and c.network.width % 16 == 0,
    )
    share = c.keypoints.outlier_share
    yield "keypoints.outlier_share", share, "is a share: 0 <= share < 1", 0 <= share < 1
    yield "keypoints.nms", c.keypoints.nms, "is a share of the image's side: 0 <= share < 1", 0 <= c.keypoints.nms < 1
    scales = c.keypoints.scales
    yield (
        "keypoints.scales",
        list(scales),
        "must be one factor or more within 0.1 and 10; [1.0] is the image as it is",
        bool(scales) and all(0.1 <= scale <= 10 for scale in scales),
    )
    yield (
        "augment.warp",
        c.augment.warp,
        "must be within 0 and 0.08: more may fold pictures",
        0 <= c.augment.warp <= 0.08,
    )
    true = c.keypoints.truth_share
    yield "keypoints.truth_share", true, "is a share: 0 <= share <= 1", 0 <= true <= 1
    yield (
        "keypoints.file",
        c.keypoints.file,
        "keypoints.detector = 'file' needs the Parquet file of your keypoints",
        bool(c.keypoints.file) or c.keypoints.detector != "file",
    )
    yield (
        "keypoints.detector",
        c.keypoints.detector,
        "has no descriptors, and method.kind = 'merge' begins with clusters of them; take sift, superpoint, aliked or r2d2",
        c.method.kind != "merge" or c.keypoints.detector not in ("file", "noisy_gt"),
    )
    workers = c.compute.worker_range
    shown = f"{{min: {workers.min}, max: {workers.max}}}" if c.compute.is_elastic else workers.min
    yield "compute.workers", shown, "must be at least 1", workers.min >= 1
    yield "compute.workers", shown, "min must not be above max", workers.min <= workers.max
    yield (
        "compute.workers",
        shown,
        "must be one number with compute.scale_lr=true, whose iterations depend on it",
        not (c.compute.scale_lr and c.compute.is_elastic),
    )
    yield from _resource_rules(c.compute, shown)
    yield (
        "network.norm",
        c.network.norm,
        f"on CPUs its statistics would be of the share that each of compute.workers = {shown} has of a batch: take "
        "network.norm=group, compute.workers=1 or compute.gpus_per_worker=1",
        c.network.norm != "batch" or workers.max <= 1 or c.compute.gpus_per_worker > 0,
    )
    for stage in ("stage1", "stage2"):
        batch = getattr(c, stage).batch_size
        yield (
            f"{stage}.batch_size",
            batch,
            f"is shared by compute.workers = {shown}: take a positive multiple of it, or compute.scale_lr=true",
            batch > 0 and (c.compute.scale_lr or bool(c.compute.worker_numbers(batch))),
        )
        rate = getattr(c, stage).learning_rate
        yield f"{stage}.learning_rate", rate, "must be positive", rate > 0
    for path in ("stage1.warmup_iterations", "stage1.rounds", "stage1.round_iterations", "stage2.iterations"):
        section, name = path.split(".")
        value = getattr(getattr(c, section), name)
        least = 0 if name == "rounds" else 1
        yield path, value, f"must be at least {least}", value >= least
    for path in ("compute.data_workers", "compute.extract_workers", "keypoints.limit",
                 "detection.calibration_images", "clustering.n_init", "clustering.iterations", "compute.checkpoint_iterations",
                 "compute.batch_images", "compute.rounds_per_fit", "detection.nms_radius"):  # fmt: skip
        section, name = path.split(".")
        value = getattr(getattr(c, section), name)
        yield path, value, "must be at least 1", value >= 1
    joint = c.stage2.training == "joint"
    yield (
        "stage2.training",
        c.stage2.training,
        "joint training is of method.kind = 'kplm', and of a round at least",
        not joint or (c.method.kind == "kplm" and c.stage1.rounds > 0),
    )
    yield "merging.every", c.merging.every, "must be at least 1", c.merging.every >= 1
    yield "merging.distance", c.merging.distance, "must be positive, in heatmap cells", c.merging.distance > 0
    yield "merging.overlap", c.merging.overlap, "is a share: 0 < share <= 1", 0 < c.merging.overlap <= 1
    yield "template.rounds", c.template.rounds, "must be at least 1", c.template.rounds >= 1
    yield "template.candidates", c.template.candidates, "must be at least 1", c.template.candidates >= 1
    share = c.template.outliers
    yield "template.outliers", share, "is a share: 0 < share < 1", 0 < share < 1
    share = c.template.min_matched
    yield "template.min_matched", share, "is a share: 0 <= share <= 1", 0 <= share <= 1
    yield "template.distance", c.template.distance, "must be positive, a share of the side", c.template.distance > 0
    yield "clustering.memory_gib", c.clustering.memory_gib, "must be positive", c.clustering.memory_gib > 0
    for name in ("warmup_points_per_landmark", "points_per_landmark"):
        points = getattr(c.detection, name)
        yield f"detection.{name}", points, "must be positive; 2 keeps 2 x K points an image", points > 0


def _resource_rules(compute: ComputeConfig, workers: Any) -> Iterable[tuple[str, Any, str, bool]]:
    """What no cluster can give. workers: `compute.workers` as it is shown."""
    gpus, cpus = compute.gpus_per_worker, compute.cpus_per_worker
    yield "compute.gpus_per_worker", gpus, "must not be negative; 0 trains on CPUs", gpus >= 0
    yield (
        "compute.gpus_per_worker",
        gpus,
        f"two of compute.workers = {workers} may land on one GPU, which NCCL refuses: take 1, or compute.workers=1",
        not 0 < gpus < 1 or compute.worker_range.max <= 1,
    )
    yield "compute.gpus_per_worker", gpus, "must be whole above 1: Ray gives no other", gpus <= 1 or gpus == int(gpus)
    yield "compute.cpus_per_worker", cpus, "must not be negative", cpus >= 0
    yield (
        "compute.cpus_per_worker",
        cpus,
        "must be positive where compute.gpus_per_worker = 0: a worker that reserves nothing finds no place",
        cpus > 0 or gpus > 0,
    )
    yield "compute.threads", compute.threads, "must be at least 1, or 0 for a share of the cores", compute.threads >= 0
    detect = compute.detect_workers
    yield "compute.detect_workers", detect, "must be at least 1, or 0 for one a core", detect >= 0
    yield "compute.shards", compute.shards, "must be at least 1, or 0 for one a node", compute.shards >= 0
    failures = compute.max_failures
    yield "compute.max_failures", failures, "must be at least 0, which restarts nothing", failures >= 0


def load(path: str | os.PathLike[str] | None, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration: a YAML file, else the ready one of this name (None: all defaults), and `key.sub=value` overrides.

    Raises ConfigError for a missing file, unknown keys, wrong types and broken rules.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            with open(ready_configs.find(path), encoding="utf-8") as stream:
                tree = yaml.safe_load(stream) or {}
        except (FileNotFoundError, NotADirectoryError):
            near = ready_configs.near(path)
            hint = f"did you mean {', '.join(near)}?" if near else "`kplm configs` lists the ready ones"
            raise ConfigError(f"{path}: no such configuration file, nor a ready one of this name; {hint}") from None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigError(
                f"{path}: not readable as a YAML file ({why}); give one, or a name that `kplm configs` lists"
            ) from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: holds a {type(tree).__name__}; it must be a mapping of keys to values")
    return from_dict(with_overrides(tree, overrides))


def with_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The tree with `key.sub=value` put in, in their order."""
    for override in overrides:
        config_parsing.put(tree, override)
    return tree


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The reverse of `Config.to_dict`; missing keys take their defaults."""
    config: Config = config_parsing.build(Config, tree)
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _flatten(tree: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
