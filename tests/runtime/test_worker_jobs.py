"""Long-lived training workers that train, work on parts and hold shards of K-means in turn, also after one was killed."""

import os
import time
from functools import partial

import numpy as np
import pytest
import torch

from ray_kplm import config as configuration
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.errors import DataError
from ray_kplm.methods import build_method
from ray_kplm.methods.trainer import NETWORK, load_weights
from ray_kplm.run import Run
from ray_kplm.runtime.kmeans_actors import ClusteringActors, ClusteringPlace, cluster_with_actors, own_hosts
from ray_kplm.runtime.train_workers import TrainWorkerPool
from ray_kplm.storage import Folder

PARTS = full_selection([f"part-{number:05d}.parquet" for number in range(6)], [4, 2, 3, 1, 5, 6])
BATCH = 4
SHORT = ["stage1.warmup_iterations=6", "compute.rounds_per_fit=9"]
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CLUSTERING = ["method.landmarks=5", "method.clusters=40", "clustering.n_init=4", "clustering.tolerance=0"]


class Count:
    """Answers with the rows of a part, after the workers have met at a folder. It refuses a part.

    Beyond the first part it waits until a file exists.
    """

    def __init__(self, meeting=None, workers=0, refuse="", go=None):
        self._refuse, self._go = refuse, go
        if meeting:
            (meeting / str(os.getpid())).touch()
            while len(os.listdir(meeting)) < workers:
                time.sleep(0.02)

    def __call__(self, part, rows):
        if part == self._refuse:
            raise DataError(f"{part}: refused")
        while self._go and part != PARTS.parts[0] and not self._go.exists():
            time.sleep(0.02)
        return {"rows": len(rows)}


class Work:
    """A pool of workers and what it does."""

    def __init__(self, folder, make_training, options, features):
        config = configuration.load_config(None, [*options, f"run={folder / 'run'}"])
        self.run, self.folder, self.features = Run.start(config), folder, features
        self.training, self.pool = make_training(config), TrainWorkerPool(config.compute, Folder.at(folder / "run"))
        self.gpus, self.in_workers = config.compute.gpus_per_worker, partial(self.pool.hosting, BATCH)

    def train(self, name):
        step = self.run.step(name, "train", {"name": name}, {})
        self.pool.train(step, self.training, lambda iteration, metrics: None)
        return load_weights(step.folder.read_bytes(NETWORK))

    def map(self, name, workers, progress=lambda share, text: None, go=None):
        """Rows of the parts, and the processes of all workers."""
        meeting = self.folder / name
        meeting.mkdir()
        arguments = {"meeting": meeting, "workers": workers, "go": go}
        answers = self.pool.map(Count, arguments, PARTS, BATCH, progress)
        return sorted(answer["rows"] for answer in answers), set(os.listdir(meeting))

    def cluster(self, name, hosting, progress=lambda share, text: None):
        """Facts of an update, its tables of labels, and its clusters."""
        gpus = self.gpus if hosting is self.in_workers else 0  # the workers hold those of the node
        options = [*CLUSTERING, f"compute.gpus_per_worker={gpus}"]
        target, method = Folder.at(self.folder / name), build_method(configuration.load_config(None, options))
        place, parts = ClusteringPlace(ClusteringActors(), hosting), self.features.parts()
        facts = cluster_with_actors(
            self.features, parts, target / "labels", target, method, 1, None, progress, place=place
        )
        place.actors.close()
        return facts, [(target / "labels").read_table(part) for part in parts], read_clusters(target)


def assert_same(one, two):
    assert all(a.equals(b) for a, b in zip(one[1], two[1], strict=True))
    for name in one[2]:
        np.testing.assert_array_equal(one[2][name], two[2][name])


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [0, pytest.param(1, marks=[pytest.mark.gpu, NEEDS_GPU])])
def test_the_same_processes_train_work_on_parts_and_cluster_and_others_go_on_when_one_is_killed(
    make_training, training_config, features, kill_workers, tmp_path, gpus
):
    workers = 1 if gpus else 2
    work = Work(
        tmp_path,
        make_training,
        [*training_config, f"compute.workers={workers}", f"compute.gpus_per_worker={gpus}", *SHORT],
        features,
    )
    killed, go = [], tmp_path / "go"

    def kill(share, text):
        if not killed:
            killed.append(kill_workers("RayTrainWorker", limit=1))
            go.touch()

    weights = work.train("first")
    rows, processes = work.map("second", workers)
    assert rows == [1, 2, 3, 4, 5, 6]
    assert len(processes) == workers
    found, expected = work.cluster("third", work.in_workers), work.cluster("in actors", own_hosts)
    assert (found[0]["shards"], found[0]["shards_rebuilt"]) == (workers, 0)
    assert_same(found, expected)
    with pytest.raises(DataError, match=r"part-00002.parquet: refused"):
        work.pool.map(Count, {"refuse": "part-00002.parquet"}, PARTS, BATCH)
    work.train("fourth")
    assert work.map("fifth", workers)[1] == processes, "other processes were started"

    assert work.map("killed in a map", workers, kill, go)[0] == rows
    assert killed == [1]
    killed.clear()
    disturbed = work.cluster("killed in clustering", work.in_workers, kill)
    assert killed == [1]
    assert disturbed[0]["shards_rebuilt"] >= 1
    assert_same(disturbed, expected)
    last = work.train("last")
    assert all(torch.equal(last[name], weights[name]) for name in weights)
    assert not work.map("after all", workers)[1] & processes
    work.pool.close()
