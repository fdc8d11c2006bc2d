"""A run's time as a function of rates: pure arithmetic, step by step.

Work that is divided among workers is counted per worker; what remains however many there are is `serial`: process starts, the
driver's work for each part, k-means++ on the coordinator, requests that wait for one another. A training iteration takes as
long as the slowest of three: the step on the device, the making of its views on the cores beside it, and the reading of its
images. On CPUs they share the cores, and the cores' time is a fourth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from ray_kplm.bench.scale_network import NetworkCost, stage1_cost, stage2_cost
from ray_kplm.bench.scale_rates import Rates
from ray_kplm.config import Config
from ray_kplm.methods import build_method
from ray_kplm.methods.base import Method

Storage = Literal["disk", "s3"]

PART_IMAGES = 512
"""Images of a part, as `kplm ingest` cuts them."""
_OUTSIDE_CALLS = 6
"""Calls to the shards besides the passes of a fit."""
_BACKWARD_SHARE = 2 / 3
"""Share of a step's time in which the gradients' all-reduce can be hidden."""


@dataclass(frozen=True)
class Design:
    """How the code goes about it. The defaults are what it does now; a change of the code changes them.

    Attributes:
        fit_passes: Iterations of K-means until it stops; thesis-sized fits take about 25.
        feature_reads: How often clustering reads each byte of features.
        label_readers: Parts of labels that are read at the same time.
        trials_on_shards: Whether the starts of K-means are tried on the shards, and not by the coordinator.
        part_requests: Requests to storage for a part of labels or features.
        storage_requests: Requests to storage in flight for each worker.
        starts_each_round: Whether extraction on GPUs and clustering are done by new processes in every round.
        overlapped: Whether extraction decodes, computes and writes at the same time.
        device_views: Whether views are made on the device, from images that the cores decode.
    """

    fit_passes: int = 25
    feature_reads: int = 1
    label_readers: int = 16
    trials_on_shards: bool = True
    part_requests: int = 3
    storage_requests: int = 4
    starts_each_round: bool = False
    overlapped: bool = True
    device_views: bool = True


@dataclass(frozen=True)
class Cluster:
    """The machines.

    Attributes:
        devices: GPUs, or training workers on CPUs.
        gpu: Whether they are GPUs. Otherwise the network runs on the cores.
        cores: Cores of a CPU beside each device; on CPUs those of the node divided by its workers.
        node_devices: Devices of a node.
        storage: Where dataset and run are.
        threads: Cores that a training step keeps busy: the one that launches, or those that compute.
        feeders: On CPUs, processes that make views for a training worker (`compute.data_workers`).
    """

    devices: int
    gpu: bool = True
    cores: float = 16.0
    node_devices: int = 8
    storage: Storage = "disk"
    threads: int = 1
    feeders: int = 1

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return -(-self.devices // self.node_devices)


@dataclass(frozen=True)
class StepTime:
    """The time of a step of a run, over all rounds.

    Attributes:
        name: Of the step.
        seconds: All of its time.
        serial: The part that more devices do not shorten.
        limit: What takes the longest of what happens at the same time.
    """

    name: str
    seconds: float
    serial: float
    limit: str


@dataclass(frozen=True)
class Workload:
    """A run: its configuration, the cost of its networks, and the dataset.

    Attributes:
        config: The run's.
        stage1: Cost of the network of the rounds.
        stage2: Cost of the landmark detector.
        images: Training images of the dataset.
        image_bytes: Bytes of an encoded image.
        evaluated: Images that an evaluation predicts.
    """

    config: Config
    stage1: NetworkCost
    stage2: NetworkCost
    images: int
    image_bytes: float = 20_000.0
    evaluated: int = 3_000

    @classmethod
    def of(cls, config: Config, images: int) -> Workload:
        """Return a configuration on a dataset of some training images."""
        return cls(config, stage1_cost(config), stage2_cost(config), images)

    @property
    def method(self) -> Method:
        """The configured method."""
        return build_method(self.config)

    def round_images(self, round: int) -> int:
        """Return the images of a round; after the last round comes stage 2."""
        return min(self.method.round_images(round), self.images)

    def detected_points(self, round: int) -> float:
        """Return the keypoints that a round's network finds in an image."""
        detection = self.config.detection
        relative = detection.points_per_landmark if round else detection.warmup_points_per_landmark
        return relative * self.config.method.landmarks


@dataclass(frozen=True)
class Iteration:
    """The time of a training iteration: seconds of each limit."""

    step: float
    launches: float
    feed: float
    storage: float
    cores: float

    @property
    def seconds(self) -> float:
        """Seconds of the iteration: those of the slowest."""
        return float(max(vars(self).values()))

    @property
    def limit(self) -> str:
        """The name of the slowest."""
        return max(vars(self), key=lambda name: float(getattr(self, name)))


@dataclass(frozen=True)
class Model:
    """The time of a run on machines with given rates."""

    rates: Rates
    cluster: Cluster
    design: Design = field(default_factory=Design)

    def steps(self, work: Workload) -> list[StepTime]:
        """Return the steps of a run, those of the rounds added up, without ingest."""
        rounds = range(work.config.stage1.rounds + 1)
        found = [
            self.detection(work),
            self.facing(work),
            _sum("warm-up", [self.training(work, 0)]),
            _sum("training of the rounds", [self.training(work, number) for number in rounds if number]),
            _sum("extraction", [self.extraction(work, number) for number in rounds]),
            _sum("clustering", [self.clustering(work, number) for number in rounds]),
            _sum("reading of labels", [self.labels(work, number) for number in [*rounds, rounds.stop]]),
            _sum("stage 2", [self.training(work, rounds.stop)]),
            self.visibility(work),
            self.evaluation(work),
        ]
        return [step for step in found if step.seconds]

    # -- training

    def training_workers(self, work: Workload, round: int) -> int:
        """Return how many of the devices train: the number that divides the batch and is fastest."""
        batch = self._batch(work, round)[0]
        possible = [n for n in range(1, self.cluster.devices + 1) if batch % n == 0]
        return min(possible, key=lambda n: (self.iteration(work, round, n).seconds, n))

    def iteration(self, work: Workload, round: int, workers: int) -> Iteration:
        """Return the time of a training iteration of a round by some workers; after the last round comes stage 2."""
        cluster, rates = self.cluster, self.rates
        units, views_per_unit = self._batch(work, round)
        cost = work.stage2 if round > work.config.stage1.rounds else work.stage1
        views = units * views_per_unit / workers
        compute = views * cost.train / rates["train_flop"]
        making = views / rates["views"]
        if self.design.device_views and cluster.gpu:
            compute, making = compute + views / rates["device_views"], views / rates["decoded"]
        step = compute + self._exposed_reduction(4.0 * cost.parameters, workers, compute)
        near = min(workers, cluster.node_devices)
        return Iteration(
            step=step,
            launches=cost.launches * rates["launch"] if cluster.gpu else 0.0,
            feed=making / self._feed_cores(),
            storage=views * near * work.image_bytes / rates[f"{cluster.storage}_bytes"],
            cores=0.0 if cluster.gpu else (step * cluster.threads + making) / self._cores_of_worker(workers),
        )

    def training(self, work: Workload, round: int) -> StepTime:
        """Return the time of the training of a round; after the last round comes stage 2."""
        if round > work.config.stage1.rounds and work.config.stage2.training == "joint":
            return StepTime("training", 0.0, 0.0, "")
        workers = self.training_workers(work, round)
        iteration = self.iteration(work, round, workers)
        iterating = self._iterations(work, round) * iteration.seconds
        trainings = work.config.compute.rounds_per_fit or work.config.stage1.rounds + 2  # 0: all of the run
        is_first = round % trainings == 0
        start = self._start("train_start") if is_first else self.rates["train_next"]
        return StepTime("training", start + iterating, start, f"{iteration.limit}, {workers} workers")

    def _iterations(self, work: Workload, round: int) -> int:
        method = work.method
        if round > work.config.stage1.rounds:
            return method.phase_bounds(method.num_phases - 1)[1]
        return method.round_first(round + 1) - method.round_first(round)

    def _batch(self, work: Workload, round: int) -> tuple[int, int]:
        """Return the units that a training's workers divide, and the views of one."""
        method = work.method
        if round > work.config.stage1.rounds:
            return method.landmark_batch, 1
        return method.round_batch, method.views_per_unit

    def _feed_cores(self) -> float:
        """Cores that make the views of a training worker."""
        return max(1.0, self.cluster.cores - self.cluster.threads) if self.cluster.gpu else float(self.cluster.feeders)

    def _cores_of_worker(self, workers: int) -> float:
        return self.cluster.cores * self.cluster.devices / workers

    def _exposed_reduction(self, size: float, workers: int, compute: float) -> float:
        """Return the seconds of the gradients' all-reduce that the backward pass does not hide."""
        if workers == 1:
            return 0.0
        inside = workers <= self.cluster.node_devices
        link = self.rates["node_link" if inside else "network_link"]
        ring = 2 * (workers - 1) / workers * size / link
        hidden = _BACKWARD_SHARE * compute if self.cluster.gpu else 0.0
        return max(0.0, ring - hidden) + self.rates["reduce_latency"] * math.log2(workers)

    # -- between the trainings

    def extraction(self, work: Workload, round: int) -> StepTime:
        """Return the time in which a round's network describes the keypoints of the next round's images."""
        rates, cluster, design = self.rates, self.cluster, self.design
        images = work.round_images(round + 1)
        workers = min(cluster.devices, self._parts(images))
        stages = {
            "network": 2 * images * work.stage1.forward / rates["forward_flop"] / workers,
            "cores": images / rates["prepared"] / workers / self._feed_cores(),
            "storage": images * (work.image_bytes + self._feature_bytes(work, round)) / self._storage_bytes(),
        }
        limit = max(stages, key=lambda name: stages[name])
        overlapped = design.overlapped and cluster.gpu
        work_seconds = stages[limit] if overlapped else sum(stages.values())
        sample = min(work.config.detection.calibration_images, images)
        sampled = sample * (work.stage1.forward / rates["forward_flop"] + 1 / rates["decoded"])
        start = self._start("map_start") if self._starts(round) else rates["map_next"]
        serial = start + sampled + self._driver(images) + self._requests(images, workers)
        return StepTime("extraction", serial + work_seconds, serial, limit)

    def clustering(self, work: Workload, round: int) -> StepTime:
        """Return the time of a pseudo-label update: two fits of K-means, with filters between them."""
        rates, config, cluster = self.rates, work.config, self.cluster
        images = work.round_images(round + 1)
        points, landmarks, clusters = work.detected_points(round), config.method.landmarks, config.method.clusters
        shards = min(cluster.devices, self._parts(images) if cluster.gpu else cluster.devices)
        cores = shards * (cluster.cores if cluster.gpu else cluster.threads)
        # After the duplicate filter an image has at most one keypoint a landmark.
        keypoints = {landmarks: images * points, clusters: images * min(points, landmarks)}
        passes = self.design.fit_passes + 1
        fitted = {k: passes * min(config.clustering.fit_points or math.inf, 2 * n) for k, n in keypoints.items()}
        reads = self.design.feature_reads * images * self._feature_bytes(work, round)
        starters = min(shards, config.clustering.n_init) if self.design.trials_on_shards else 1
        sampled = [min(1.0, 2 * n / config.clustering.start_sample) for n in keypoints.values()]
        stages = {
            "fits": sum(vectors / self._assigned(work, k, cores, shards) for k, vectors in fitted.items()),
            "filters": keypoints[landmarks] / rates["clustered"] / cores,
            "storage": reads / self._storage_bytes(),
            "starts of K-means": rates["trials"] * sum(sampled) / len(sampled) / starters,
        }
        reduction = (
            sum(passes * shards * 16 * k * config.network.descriptor_dim for k in fitted) / rates["network_link"]
        )
        calls = (2 * passes + _OUTSIDE_CALLS) * rates["call"]
        starts_processes = self.design.starts_each_round or round == 0
        begin = self._start("cluster_start") if starts_processes else 0.0
        serial = begin + stages["starts of K-means"] + (reduction if cluster.gpu else 0.0) + calls
        serial += self.design.feature_reads * self._requests(images, shards)
        shared = sum(seconds for name, seconds in stages.items() if name != "starts of K-means")
        return StepTime("clustering", serial + shared, serial, max(stages, key=lambda name: stages[name]))

    def _assigned(self, work: Workload, k: int, cores: float, shards: int) -> float:
        """Return the descriptors that all shards assign to k centroids in a second."""
        if self.cluster.gpu:
            return shards * self.rates["device_vectors_flop"] / (2.0 * k * work.config.network.descriptor_dim)
        return cores * self.rates["fitted"]

    def labels(self, work: Workload, round: int) -> StepTime:
        """Return the time in which the driver reads the labels of a round's images."""
        images, readers = work.round_images(round), self.design.label_readers
        reading = images / self.rates["labels"] / readers
        waiting = self._parts(images) * self.design.part_requests * self._request() / readers
        return StepTime("labels", reading + waiting, reading + waiting, "requests" if waiting > reading else "reading")

    # -- the first and the last steps

    def detection(self, work: Workload) -> StepTime:
        """Return the time of the generic keypoints of the warm-up's images."""
        images = work.round_images(0)
        cores = self.cluster.cores * self.cluster.devices
        sample = min(images, work.config.keypoints.outlier_sample / max(work.config.keypoints.limit, 1))
        serial = self.rates["map_start"] + self._driver(images) + sample / self.rates["detected"]
        serial += self._requests(images, int(cores))
        return StepTime("keypoints", serial + images / self.rates["detected"] / cores, serial, "detection")

    def facing(self, work: Workload) -> StepTime:
        """Return the time of the decision what a mirror image is, on a sample."""
        if work.config.method.mirror not in ("auto", "facing"):
            return StepTime("facing", 0.0, 0.0, "")
        images = min(_FACING_IMAGES, work.images)
        seconds = self.rates["map_start"] + 2 * images / self.rates["detected"] / self.cluster.cores
        return StepTime("facing", seconds, seconds, "start")

    def visibility(self, work: Workload) -> StepTime:
        """Return the time of the fit of visibility on a sample: four passes of the network."""
        images = min(work.config.visibility.images, work.images)
        return self._prediction("visibility", work, images, passes=4)

    def evaluation(self, work: Workload) -> StepTime:
        """Return the time of the prediction of annotated images."""
        return self._prediction("evaluation", work, min(work.evaluated, work.images), passes=2)

    def _prediction(self, name: str, work: Workload, images: int, passes: int) -> StepTime:
        workers = min(self.cluster.devices, self._parts(images))
        seconds = images * passes * work.stage2.forward / self.rates["forward_flop"] / workers
        seconds += images / self.rates["decoded"] / workers / self._feed_cores()
        serial = self._start("map_start")
        return StepTime(name, serial + seconds, serial, "start" if serial > seconds else "network")

    # -- what the steps share

    def _start(self, name: str) -> float:
        """Return the seconds until new processes work."""
        return self.rates[name] + (self.rates["device_start"] if self.cluster.gpu else 0.0)

    def _starts(self, round: int) -> bool:
        """Return whether a round's extraction waits for new processes. On CPUs, processes that worked before stay."""
        return round == 0 or (self.cluster.gpu and self.design.starts_each_round)

    def _parts(self, images: int) -> int:
        return max(1, -(-images // PART_IMAGES))

    def _driver(self, images: int) -> float:
        """Return the seconds of the driver for the parts of a map."""
        return self._parts(images) * self.rates["part"]

    def _request(self) -> float:
        return self.rates[f"{self.cluster.storage}_request"]

    def _requests(self, images: int, workers: int) -> float:
        """Return the seconds of waiting for storage of workers that share the parts."""
        in_flight = max(1, workers) * self.design.storage_requests
        return math.ceil(self._parts(images) / in_flight) * self.design.part_requests * self._request()

    def _storage_bytes(self) -> float:
        """Return the bytes that all nodes read or write in a second."""
        return self.cluster.nodes * self.rates[f"{self.cluster.storage}_bytes"]

    def _feature_bytes(self, work: Workload, round: int) -> float:
        """Return the bytes of the features of an image: two descriptors a keypoint, its place and its score."""
        return work.detected_points(round) * (2 * 2 * work.config.network.descriptor_dim + 12)


_FACING_IMAGES = 2_000
"""Most images of the sample on which it is decided what a mirror image is."""


def total(steps: list[StepTime]) -> StepTime:
    """Return the sum of the steps of a run; its limit is the longest step."""
    longest = max(steps, key=lambda step: step.seconds)
    return replace(_sum("run", steps), limit=longest.name)


def _sum(name: str, steps: list[StepTime]) -> StepTime:
    seconds, serial = sum(step.seconds for step in steps), sum(step.serial for step in steps)
    limit = max(steps, key=lambda step: step.seconds).limit if steps else ""
    return StepTime(name, seconds, serial, limit)


def weak_config(config: Config, devices: int) -> Config:
    """Return the configuration with the batch of every training multiplied by a number of devices: work grows with them."""
    stage1, stage2 = config.stage1, config.stage2
    return replace(
        config,
        stage1=replace(stage1, batch_size=stage1.batch_size * devices),
        stage2=replace(stage2, batch_size=stage2.batch_size * devices),
    )
