"""The configuration: every value with its range, default, unit and source. Rules between values are in `config_rules`.

`load_config("faces_cpu", ["dataset=DIR", "method.landmarks=20"])` reads YAML and dotted overrides into a frozen
`Config`. Unknown keys, wrong types and broken rules raise a `ConfigError` that names the path. All sections are in this one
file, so that every default has one place.

Sources: T is the thesis (Mallis 2023, chapter 6 unless said otherwise), R the authors' released code.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ray_kplm import config_parsing
from ray_kplm.config_paths import of_run_directory
from ray_kplm.config_rules import check_rules
from ray_kplm.ranges import (
    BatchSize,
    Count,
    CountOrZero,
    PartShare,
    Processes,
    ProcessesOrZero,
    Range,
    Seed,
    Share,
    Sigma,
    Weight,
)

AUTO = 0
"""The value of an `AutoInt` that is written as `auto`."""
AutoInt = Annotated[int, "auto"]
"""A number, or `auto`: chosen from the images when a run begins, and recorded in it (`steps.choose`)."""
Zoom = Annotated[float, Range(0.05, 20)]
Factor = Annotated[float, Range(0, 10)]
Turn = Annotated[float, Range(-0.5, 0.5)]
LearningRate = Annotated[float, Range(0, 10, above=True)]
PerLandmark = Annotated[float, Range(0, 1000, above=True)]


@dataclass(frozen=True)
class MethodConfig:
    """What is discovered, and by which variant of the method."""

    kind: Literal["kplm", "merge", "template"] = "kplm"
    """Method: `kplm` is chapter 6, `merge` chapter 5, `template` chapter 4."""
    landmarks: Annotated[AutoInt, Range(2, 10_000)] = 30
    """K, the number of landmarks (T 6.2). In `template` this is the maximum: there are fewer if the template's image has fewer
    points. In `merge` the number of landmarks results from merging, and this only scales how many keypoints are detected.
    `auto`: chosen from the images when a run begins, as `kplm choose` does."""
    clusters: Annotated[AutoInt, Range(2, 32_767)] = 100
    """M, the number of training clusters; many more than K, since one landmark may have several appearances (T 6.3.3).
    `auto`: from K and the number of keypoints, when a run begins."""
    mirror: Literal["auto", "partners", "facing", "none"] = "auto"
    """What a mirror image is. `partners`: an image of the same view, in which each landmark has a partner, as a face's left and
    right eye; the partners are recovered by clustering (T 6.1.8). `facing`: the same object facing the other way, as an animal
    seen from the side, whose head is the head in the mirror too; which way each image faces is found first. `none`: mirror
    images are not used. `auto`: `partners` or `facing`, by how alike images are to their own mirror images. Methods `merge` and
    `template` have no landmarks in mirror images; `template` shows them in stage 1 unless it is `none`."""
    drop_static: Literal["auto", "yes", "no"] = "auto"
    """Leave out the background where it is static (T 7.1). `auto`: generic keypoints at places of the input that show the same
    in many images, and landmarks that stand still at such a place; objects that are aligned keep theirs. `yes`: all landmarks
    that stand still, by their positions alone. `no`: nothing."""


@dataclass(frozen=True)
class NetworkConfig:
    """The hourglass (T 2.3, docs/method.md 1)."""

    image_size: Annotated[int, Range(16, 4096)] = 256
    """S, side of the network's square input, pixels; the heatmap has S / 4 cells a side."""
    width: Annotated[int, Range(16, 4096)] = 256
    """Channels of the hourglass; the stem's layers have a quarter and a half of them."""
    depth: Annotated[int, Range(1, 8)] = 4
    """How many times the hourglass halves its S / 4 grid."""
    descriptor_dim: Annotated[int, Range(1, 4096)] = 256
    """d, width of a descriptor."""
    norm: Literal["group", "batch"] = "group"
    """Group norm is better than batch norm under label noise (T 4.2.3). `batch` takes its statistics over the whole batch, with
    several training workers on GPUs only."""
    groups: Annotated[int, Range(1, 4096)] = 32
    """Groups of a group norm; layers whose width they do not divide use the greatest common divisor."""


@dataclass(frozen=True)
class KeypointsConfig:
    """The generic keypoints that the method starts from (T 6.3.4)."""

    detector: Literal["sift", "orb", "superpoint", "aliked", "r2d2", "file", "noisy_gt"] = "sift"
    """`sift`, `orb`: with adaptive non-maximal suppression. `superpoint`, `aliked`, `r2d2`: pretrained networks. `file`: your
    own. `noisy_gt`: annotated points among random ones, for experiments on noise (T Fig. 6.5)."""
    limit: Annotated[int, Range(1, 100_000)] = 50
    """Maximum number of keypoints of an image after suppression."""
    weights: str = ""
    """Weights of a pretrained network: a file; for `superpoint` a folder or a hub name. Empty: for `aliked` those that the
    extra `aliked` installs, for `superpoint` its authors' model on the hub."""
    confidence: Share = 0.0
    """Minimum score of a pretrained network's points; 0: its authors' value (superpoint 0.15, T; aliked 0.2; r2d2 0.7)."""
    nms: PartShare = 0.037
    """Minimum distance of a pretrained network's points, share of the image's longer side (T 8 px of 218)."""
    image_size: Annotated[int, Range(0, 16_384)] = 0
    """Longer side of the input of a pretrained network, pixels; 0: the image as it is stored."""
    scales: tuple[Annotated[float, Range(0.1, 10)], ...] = (1.0,)
    """A pretrained network runs on the image enlarged by each factor; its points are pooled (T 5.3.2: 1, 1.3, 1.6)."""
    file: str = ""
    """Parquet for `file`: image_id, xy (a list of (x, y), pixels of the source image), optionally score."""
    truth_share: Share = 0.4
    """Share of annotated points in `noisy_gt`; the others are uniformly random."""
    truth_shift: Share = 0.012
    """Annotated points are moved by up to this share of the image's longer side in each direction (T 3 px of 256)."""
    outlier_share: PartShare = 0.4
    """Share of keypoints that are dropped as outliers: those least like all others (R); 0 keeps all."""
    outlier_sample: Count = 30_000
    """Descriptors in the nearest-neighbour index that outliers are measured against."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random views in training (R, docs/method.md 3). Ranges are (low, high)."""

    scale: tuple[Zoom, Zoom] = (0.8, 1.2)
    """Zoom factor."""
    translate: Share = 0.05
    """Shift, up to this share of the side in each direction."""
    rotate: Annotated[float, Range(0, 360)] = 40.0
    """Rotation, up to this many degrees in each direction."""
    brightness: tuple[Factor, Factor] = (0.9, 1.1)
    """Factor on all values."""
    contrast: tuple[Factor, Factor] = (0.85, 1.3)
    """Factor on the distance from the mean grey."""
    saturation: tuple[Factor, Factor] = (0.5, 1.5)
    """Factor on the saturation, in `colour_share` of the views."""
    hue: tuple[Turn, Turn] = (-0.04, 0.04)
    """Shift of the hue, share of the circle, in `colour_share` of the views."""
    colour_share: Share = 0.3
    """Share of views whose hue and saturation change."""
    blur: Sigma = 0.5
    """Largest sigma of the Gaussian blur, pixels."""
    blur_share: Share = 0.3
    """Share of views blurred."""
    noise: Share = 0.05
    """Largest standard deviation of additive Gaussian noise, share of full scale; half of it per channel."""
    noise_share: Share = 0.5
    """Share of views with noise."""
    paste: Share = 0.5
    """Share of views in which the object is cut out by its box, moved, and pasted on the background of another image (none in T
    and R; in datasets with boxes). Without it a network can learn where parts usually are in place of what they look like."""
    paste_shift: Annotated[float, Range(0, 0.5)] = 0.2
    """How far a pasted object moves, up to this share of the side in each direction; it shrinks where there is no room."""
    warp: Annotated[float, Range(0, 0.08)] = 0.0
    """Smooth warp: the points of a 4 x 4 lattice move by up to this share of the side in each direction (none in T and R).
    Without it a network can recognise parts by their layout, which fails when an object turns."""
    extra: str = ""
    """Transforms of your own: the path or URI of a file that `albumentations.save` wrote, .json or .yaml (docs/method.md 3)."""


@dataclass(frozen=True)
class Stage1Config:
    """Self-training of detector and descriptors in rounds (T Algorithm 2, 6.2.1)."""

    warmup_iterations: Count = 30_000
    """Equivariance: pairs are two views of one image, a keypoint corresponds to itself (T 6.1.5)."""
    rounds: Annotated[int, Range(0, 100_000)] = 34
    """Rounds after the warm-up; 34 x 5,000 + 30,000 are T's 200,000 iterations."""
    round_iterations: Count = 5_000
    """Iterations between two updates of the pseudo-labels."""
    batch_size: BatchSize = 16
    """Pairs in a batch, over all workers."""
    learning_rate: LearningRate = 2e-4
    """RMSprop (T 2e-4, R 1e-4)."""
    weight_decay: Share = 1e-5
    """RMSprop (T, R)."""
    decay: Literal["steps", "cosine"] = "steps"
    """How the learning rate falls. `steps`: at `decay_at`. `cosine`: to 1 % over the warm-up and over each round, each from the
    full rate (R, chapter 5)."""
    decay_at: tuple[Share, ...] = (0.75, 0.9)
    """Learning rate x 0.1 when these shares of all stage-1 iterations are done (R 150k and 180k of 200k); in `template`, whose
    rounds train from scratch, these shares of each round. Not used by `decay: cosine`."""
    descriptor_weight: Weight = 10.0
    """Weight of the descriptor loss against the detector's (R)."""
    correspondence: Literal["clustering", "equivariance"] = "clustering"
    """What a round's positive pairs are: points of one cluster in two images; or, for comparison, a point and itself in two
    views of one image, as in the warm-up (T Table 6.3)."""
    negatives: Literal["auto", "same_image", "different_cluster"] = "auto"
    """What a round's negative pairs are. `same_image`: the other points and random cells of the same image, chapter 6.
    `different_cluster`: points of other clusters in all images of the batch, chapter 5 (T Table 6.3). `auto`: that of
    `method.kind`."""
    positives: Literal["pair", "batch"] = "pair"
    """Where a round looks for corresponding points: in the pair's other image (R), or in all images of the batch, which gives
    about ten times as many pairs and matters when training is short. The warm-up uses the pair only."""
    pair_weighting: Literal["all", "balanced"] = "all"
    """`all`: mean over all pairs together (R). `balanced`: mean of positives plus mean of negatives."""
    margin: Annotated[float, Range(0, 4)] = 0.8
    """Distance at which a negative pair costs nothing (R)."""
    negative_pairs: CountOrZero = 5_000
    """Negative pairs of an image: all pairs of its own points, filled up with pairs of a point and a random cell (R)."""
    negative_distance: Annotated[float, Range(0, 2)] = 0.09
    """Points closer than this are no negative pairs; share of the heatmap's side (R 5.7 of 64 cells)."""
    heatmap_sigma: Sigma = 0.0
    """Sigma of a target's Gaussian, cells; 0 marks a single cell (R)."""
    same_image_share: Share = 0.0
    """Share of a round's pairs that are two views of one image."""
    frame_gap: CountOrZero = 5
    """In datasets with sequences, pairs of two views of one image (the warm-up's) become pairs of two frames at most so many
    frames apart, with the correspondence of dense optical flow (T 6.2.1, for videos; 5: Zhang et al. 2018). 0: off."""


@dataclass(frozen=True)
class DetectionConfig:
    """From heatmaps to keypoints when pseudo-labels are updated (docs/method.md 3, step 1)."""

    threshold: Literal["calibrated", "fixed"] = "calibrated"
    """`calibrated`: each round chooses the threshold that keeps `points_per_landmark` x K points an image. `fixed`:
    `fixed_threshold`."""
    fixed_threshold: Share = 0.15
    """Threshold of the sigmoid heatmap (R). The peaks of small or briefly trained networks are far below it."""
    warmup_points_per_landmark: PerLandmark = 2.0
    """Calibrated points an image after the warm-up, relative to K. Points that are missing from this clustering are lost; on
    faces, 3 and more put nose and mouth into one cluster, 1.5 and 2 kept them apart."""
    points_per_landmark: PerLandmark = 2.0
    """Calibrated points an image in the rounds, relative to K; duplicates among them are dropped later. The detector has learnt
    about K places by then, so that many more points are noise."""
    calibration_images: Count = 500
    """Images in the seeded sample on which the threshold is chosen."""
    inside_box: bool = True
    """Drop keypoints outside the object's box, where the dataset has one, in every round (T, R: generic keypoints alone). They
    are background, which rounds may otherwise learn."""
    nms_radius: Annotated[int, Range(1, 1024)] = 2
    """A keypoint is the maximum of (2 r + 1)^2 cells (R)."""
    limit: Annotated[int, Range(1, 100_000)] = 200
    """Maximum number of keypoints of an image."""


@dataclass(frozen=True)
class ClusteringConfig:
    """K-means over descriptors (T 6.1.2, docs/method.md 3)."""

    iterations: Count = 100
    """Maximum number of Lloyd iterations (R)."""
    tolerance: Share = 1e-4
    """A fit ends when the objective falls by less than this share in an iteration."""
    n_init: Annotated[int, Range(1, 10_000)] = 10
    """Number of k-means++ initialisations, each fitted on a sample; the best is fitted on all points. A bad one loses landmarks
    that later rounds do not recover (R: 10, without effect)."""
    fit_points: Annotated[int, Range(0, 10**12)] = 1_600_000
    """Descriptors in the seeded sample that is fitted (R: those of the first 800,000 keypoints, plain and mirrored); 0: all."""
    start_sample: Count = 25_000
    """Descriptors in the sample on which the initialisations are compared."""
    spherical: bool = False
    """Normalise centroids to unit length."""
    memory_gib: Annotated[float, Range(0, 65_536, above=True)] = 1.0
    """Memory of a shard, GiB, and as much of its GPU for descriptors. Features that do not fit are read again in each pass. The
    minimum is about 0.3, which the libraries and the part that is being read take."""


@dataclass(frozen=True)
class Stage2Config:
    """The landmark detector of K channels (T 6.1.7, docs/method.md 4)."""

    training: Literal["separate", "joint"] = "separate"
    """`separate`: after stage 1. `joint`: in the rounds of stage 1, by a third head of the same network, without a stage 2; of
    the values below only `heatmap_sigma` and `flip_at_test` are used then (T 7.2; `method.kind: kplm`)."""
    joint_weight: Weight = 1.0
    """Weight of the landmark head's loss in joint training."""
    iterations: Count = 200_000
    """Training iterations (R)."""
    batch_size: BatchSize = 16
    """Images in a batch, over all workers."""
    learning_rate: LearningRate = 2e-4
    """Learning rate of the landmark head, RMSprop."""
    backbone_factor: Annotated[float, Range(0, 1000)] = 0.1
    """Learning rate of the backbone relative to the head's (R). Not used by `template`, whose detectors train from scratch."""
    weight_decay: Share = 1e-5
    """RMSprop (T, R)."""
    decay_at: tuple[Share, ...] = (0.25, 0.35)
    """Learning rate x 0.1 when these shares of the iterations are done (R 50k and 70k of 200k); in `template`, whose detectors
    train from scratch, these shares of each detector's iterations."""
    heatmap_sigma: Sigma = 0.75
    """Sigma of a target's Gaussian, cells (R: a 3 x 3 stamp 1 / .41 / .17, which is sigma 0.75)."""
    flip_at_test: bool = True
    """Average the heatmaps of an image and of its mirror (T Table 6.5)."""


@dataclass(frozen=True)
class VisibilityConfig:
    """The probability of a landmark being there, fitted after stage 2 without annotation (docs/method.md 4)."""

    images: Annotated[int, Range(1, 1_000_000)] = 1_000
    """Training images in the seeded sample on which it is fitted."""


@dataclass(frozen=True)
class MergingConfig:
    """Merging of channels in stage 2, in `method.kind: merge` (T 5.2.2, 5.3.2)."""

    every: Count = 25_000
    """Iterations of stage 2 between two merges (R)."""
    min_points: CountOrZero = 500
    """Clusters with fewer points in the last round's labels get no channel (R)."""
    confidence: Share = 0.2
    """A channel fires in an image when its peak is above this (R)."""
    distance: Annotated[float, Range(0, 4096, above=True)] = 1.0
    """Two channels are at the same place if they are within this many cells (T 1 of 64; R 5.7 px of 256)."""
    overlap: Annotated[float, Range(0, 1, above=True)] = 0.7
    """Two channels are merged if they are at the same place in more than this share of the images in which the rarer one fires
    (T, R)."""


@dataclass(frozen=True)
class TemplateConfig:
    """Correspondence with the points of one image, in `method.kind: template` (T 4.2.4, docs/method.md 6)."""

    image: str = ""
    """image_id of the training image whose points are the template; empty: the image whose points are found in the others most
    often. The `method.landmarks` of its points that are found in most images are kept (T: 13 points of a face)."""
    candidates: Count = 30
    """Images that are tried as templates if none is named."""
    sample: Count = 150
    """Images on which each candidate is tried, and on which the points of the template that are kept are chosen."""
    distance: Annotated[float, Range(0, 10, above=True)] = 0.1
    """Maximum distance of a point from its template point after alignment (Coherent Point Drift), share of the image's side."""
    outliers: Annotated[float, Range(0, 1, above=True, below=True)] = 0.1
    """Expected share of an image's points that correspond to no template point."""
    min_matched: Share = 0.5
    """Minimum share of the template's points found in an image; other images are left out."""
    distil_from: CountOrZero = 5
    """First round whose points are detected in the mean heatmap of several views of an image (T)."""
    rounds: Annotated[int, Range(1, 1000)] = 3
    """Number of detectors of K channels that are trained one after the other, each on the previous one's landmarks and for an
    equal share of `stage2.iterations` (T)."""
    confidence: Share = 0.2
    """Minimum confidence of a landmark that is a label for the next detector."""


@dataclass(frozen=True)
class WorkerRange:
    """A range of training workers: as many as the cluster has room for when a training step begins."""

    min: Processes = 1
    """The training step waits until there is room for this many."""
    max: Processes = 1
    """Maximum number of workers."""


@dataclass(frozen=True)
class ComputeConfig:
    """How the work is distributed. Except for `scale_lr`, nothing here changes the results but by rounding.

    The gradients of any number of training workers are those of the whole batch in one process.
    """

    workers: Processes | WorkerRange = 1
    """Ray Train workers (DDP processes). `{min: 1, max: 8}`: the largest number that divides the batch and that the cluster has
    room for when a training step begins."""
    gpus_per_worker: Annotated[float, Range(0, 64)] = 0.0
    """GPUs of a training worker, of an extraction worker and of a K-means shard; 0: CPU. A fraction shares a GPU between one
    training worker and the extraction or clustering beside it; several training workers need whole GPUs (NCCL)."""
    cpus_per_worker: Annotated[float, Range(0, 4096)] = 1.0
    """CPUs that a training worker and an extraction worker reserve in Ray; 0 is allowed for workers with a GPU."""
    threads: ProcessesOrZero = 0
    """Threads of a training worker or of a K-means shard; 0: the node's cores divided by the number of these on the node."""
    data_workers: Processes = 1
    """Concurrent Ray Data tasks that decode and augment, for each training worker."""
    extract_workers: Processes = 1
    """Concurrent processes that run the network when features are extracted."""
    detect_workers: ProcessesOrZero = 0
    """Concurrent processes that detect generic keypoints; 0: one a core."""
    shards: ProcessesOrZero = 0
    """Actors over which K-means is distributed; 0: one a node, or one a GPU if GPUs are used."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast; `auto`: bf16 on GPUs and on CPUs with bf16 instructions, decided once for the whole run by the driver that
    begins it."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory format; `auto`: on GPUs only, decided once as `precision` is."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether network and loss of a training are compiled (`torch.compile`), and on CUDA replayed as CUDA graphs; with several
    workers the network alone. `auto`: on CUDA only, decided once as `precision` is. Where it fails, training warns and goes on
    without."""
    scale_lr: bool = False
    """R's rule for W workers: `batch_size` for each, learning rate x W, iterations / W. Off: the workers divide one batch."""
    checkpoint_iterations: Count = 250
    """Iterations between checkpoints inside a training step."""
    rounds_per_fit: CountOrZero = 0
    """Training steps (the warm-up, a round, stage 2) that the same worker processes run one after the other, before new ones
    start, of a range as many as there is room for. Workers keep their CPUs in between; with GPUs they extract features and hold
    the shards of K-means themselves. 0: all steps if their number is fixed, and with CPUs alone there is room for
    `extract_workers` beside them, with GPUs `extract_workers` are no more than they; otherwise 1."""
    max_failures: CountOrZero = 3
    """How many times a training step is restarted from its last checkpoint after a worker died."""
    batch_images: BatchSize = 64
    """Batch size of extraction and prediction, images."""

    @property
    def worker_range(self) -> WorkerRange:
        """Minimum and maximum number of training workers."""
        return self.workers if isinstance(self.workers, WorkerRange) else WorkerRange(self.workers, self.workers)

    @property
    def is_elastic(self) -> bool:
        """Whether the number of training workers depends on the cluster."""
        return isinstance(self.workers, WorkerRange)

    def worker_numbers(self, batch: int) -> list[int]:
        """Return the numbers of training workers that divide a batch of this size, ascending."""
        bounds = self.worker_range
        return [n for n in range(max(bounds.min, 1), bounds.max + 1) if batch % n == 0]


@dataclass(frozen=True)
class RunLimits:
    """Limits below which a run stops because its pseudo-labels have collapsed."""

    min_points_per_image: Annotated[float, Range(0, 100_000)] = 2.0
    """Minimum number of pseudo-labels an image on average."""
    min_image_share: Share = 0.1
    """Minimum share of images with at least two points."""


@dataclass(frozen=True)
class Config:
    """The configuration of a run."""

    dataset: str = ""
    """The dataset that `kplm ingest` made: a folder or a URI."""
    run: str = ""
    """The run directory: a folder or a URI."""
    seed: Seed = 0
    """Seed of every random choice."""
    round_images: CountOrZero = 0
    """Images drawn for a round; 0: as many as its iterations can use, at most all."""
    keep_features: bool = False
    """Keep each round's descriptors, which are otherwise deleted after clustering."""
    features: str = "hog"
    """Dense features that are not trained here, for decisions before descriptors are learnt. `hog`: histograms of oriented
    gradients, no weights. `aliked`: that network's feature map, by `keypoints.weights` or the extra `aliked`. `dinov2`, a
    folder or a hub name: a vision transformer such as DINOv2, DINOv3 or SigLIP (extra `semantic`)."""
    features_share: Share = 0.5
    """Share of `features` in the descriptors that keypoints are clustered by after the warm-up, beside the learnt ones. It
    falls linearly over the rounds, to 0 in the last one (docs/method.md 3). 0: the learnt descriptors alone, as always with
    `features: hog`, in the methods `merge` and `template`, and in joint training."""
    method: MethodConfig = field(default_factory=MethodConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    keypoints: KeypointsConfig = field(default_factory=KeypointsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    visibility: VisibilityConfig = field(default_factory=VisibilityConfig)
    merging: MergingConfig = field(default_factory=MergingConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    limits: RunLimits = field(default_factory=RunLimits)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        check_rules(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries and lists, as in YAML."""
        tree: dict[str, Any] = config_parsing.to_plain(dataclasses.asdict(self))
        return tree

    def flat(self) -> dict[str, Any]:
        """Return all values by their dotted path."""
        return dict(config_parsing.flatten(self.to_dict(), ""))


def load_config(path: str | os.PathLike[str] | None, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration from a YAML file and overrides.

    That of a run directory which was moved or copied continues this directory, and a line says so.

    Args:
        path: a YAML file, or the name of a ready configuration; None: all defaults.
        overrides: `section.key=value`, applied in their order.

    Returns:
        The configuration.

    Raises:
        ConfigError: the file is missing or unreadable, a key is unknown, a value has a wrong type or breaks a rule.
    """
    if path is None:
        return from_dict(with_overrides({}, overrides))
    tree, moved = of_run_directory(path, config_parsing.read_yaml(path))
    given = list(overrides)
    if moved and not any(override.startswith("run=") for override in given):
        print(f"kplm: {moved}", file=sys.stderr, flush=True)
    return from_dict(with_overrides(tree, given))


def with_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply `section.key=value` overrides to a plain tree in place, in their order, and return it."""
    for override in overrides:
        config_parsing.put(tree, override)
    return tree


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Build a configuration from a plain tree, the reverse of `Config.to_dict`; missing keys take their defaults."""
    config: Config = config_parsing.build(Config, tree)
    return config
