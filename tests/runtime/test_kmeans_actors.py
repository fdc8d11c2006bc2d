"""The clustering actor and its shards: processes are killed, and the labels stay those of an undisturbed update."""

import threading
import time

import numpy as np
import pytest

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.errors import DamageError, RunError
from ray_kplm.methods import build_method
from ray_kplm.progress import ignore_progress
from ray_kplm.runtime.kmeans_actors import cluster_with_actors
from ray_kplm.runtime.shard_placement import place_shards, replace_shard
from ray_kplm.storage import Folder

CONFIG = [
    "method.landmarks=5",
    "method.clusters=40",
    "clustering.n_init=4",
    "clustering.tolerance=0",
    "compute.shards=2",
]


def run(features, target, overrides=(), progress=ignore_progress):
    """Facts of the update, its tables of labels, and its clusters."""
    target = Folder.at(target)
    facts = cluster_with_actors(
        features,
        features.parts(),
        target / "labels",
        target,
        build_method(load_config(None, [*CONFIG, *overrides])),
        1,
        None,
        progress,
    )
    labels = [(target / "labels").read_table(part) for part in (target / "labels").parts()]
    return facts, labels, read_clusters(target)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, features, tmp_path_factory):
    return run(features, tmp_path_factory.mktemp("undisturbed"))


def assert_same(one, two):
    assert all(a.equals(b) for a, b in zip(one[1], two[1], strict=True))
    assert one[2].keys() == two[2].keys()
    for name in one[2]:
        np.testing.assert_array_equal(one[2][name], two[2][name])


@pytest.fixture
def killer(kill_workers):
    """Start a thread that kills a process `ray::TITLE...` when the update reaches a share; `killed` gets their number."""

    def start(title: str, after: float, shares: list, killed: list) -> threading.Thread:
        def kill():
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and not any(share >= after for share in shares):
                time.sleep(0.01)
            killed.append(kill_workers(f"ray::{title}", limit=1))

        thread = threading.Thread(target=kill)
        thread.start()
        return thread

    return start


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.1, 0.7])
def test_a_killed_shard_is_rebuilt_with_the_same_labels(undisturbed, features, killer, tmp_path, after):
    shares, killed = [], []
    thread = killer("_ShardActor", after, shares, killed)
    disturbed = run(features, tmp_path, progress=lambda share, text: shares.append(share))
    thread.join()
    assert killed == [1]
    assert disturbed[0]["shards_rebuilt"] == 1
    assert_same(undisturbed, disturbed)


@pytest.mark.slow
def test_a_killed_coordinator_starts_the_step_again_with_the_same_labels(undisturbed, features, killer, tmp_path):
    shares, killed = [], []
    thread = killer("CorrespondenceActor", 0.6, shares, killed)
    disturbed = run(features, tmp_path, progress=lambda share, text: shares.append(share))
    thread.join()
    assert killed == [1]
    assert_same(undisturbed, disturbed)


@pytest.mark.parametrize("shards", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_any_number_of_shards_that_stream_their_features_gives_the_same_bits(undisturbed, features, tmp_path, shards):
    other = run(features, tmp_path, [f"compute.shards={shards}", "clustering.memory_gib=0.0001"])
    assert other[0]["shards"] == shards
    assert_same(undisturbed, other)


@pytest.mark.slow
def test_more_shards_than_cpus_run(ray_cluster, features, tmp_path):
    doubled = Folder.at(tmp_path / "doubled")
    for number, part in enumerate(features.parts() * 2):
        doubled.write_bytes(f"part-{number:05d}.parquet", features.read_bytes(part))
    quick = ["compute.shards=9", "clustering.n_init=1", "clustering.iterations=2"]
    assert run(doubled, tmp_path / "labels", quick)[0]["shards"] == 9


@pytest.mark.slow
def test_shards_that_keep_dying_are_an_error_that_names_the_setting(features, killer, tmp_path):
    shares, killed = [], []
    thread = killer("_ShardActor", 0.05, shares, killed)
    with pytest.raises(RunError, match=r"died 1 times in \w+ \(compute.max_failures = 0\).*clustering.memory_gib"):
        run(features, tmp_path, ["compute.max_failures=0"], lambda share, text: shares.append(share))
    thread.join()


def test_an_unreadable_part_is_an_error_of_one_line(ray_cluster, features, tmp_path):
    bad = Folder.at(tmp_path / "bad")
    for part in features.parts():
        bad.write_bytes(part, features.read_bytes(part))
    bad.write_bytes("part-00004.parquet", b"PAR1 and no more")
    with pytest.raises(DamageError, match=r"part-00004.parquet: is damaged") as caught:
        run(bad, tmp_path)
    assert "\n" not in str(caught.value)


def node(name, **resources):
    return {"NodeID": name, "Alive": resources.pop("alive", True), "Resources": resources}


def test_shards_are_placed_one_a_node_or_one_a_gpu():
    nodes = [node("b", CPU=8), node("a", CPU=4, GPU=2), node("head", CPU=0), node("dead", CPU=8, alive=False)]
    assert [(p.node, p.cpus, p.shards) for p in place_shards(nodes, 100, ComputeConfig())] == [("a", 4, 1), ("b", 8, 1)]
    assert [p.node for p in place_shards(nodes, 100, ComputeConfig(shards=3))] == ["a", "b", "a"]
    assert [p.node for p in place_shards(nodes, 100, ComputeConfig(gpus_per_worker=1))] == ["a", "a"]
    assert len(place_shards(nodes, 1, ComputeConfig())) == 1
    crowd = place_shards(nodes, 100, ComputeConfig(shards=6, gpus_per_worker=1))
    assert [p.gpus for p in crowd] == [0.3333] * 6
    with pytest.raises(RunError, match="GPU"):
        place_shards([node("b", CPU=8)], 5, ComputeConfig(gpus_per_worker=1))


def test_a_lost_shard_goes_to_another_node_and_asks_for_no_gpu():
    nodes = [node("a", CPU=4, GPU=1), node("b", CPU=4, GPU=1), node("c", CPU=4)]
    compute = ComputeConfig(gpus_per_worker=1)
    first, second = place_shards(nodes, 100, compute)
    assert (first.gpus, replace_shard(first, nodes, compute).node, replace_shard(first, nodes, compute).gpus) == (
        1,
        "b",
        0,
    )
    assert replace_shard(second, nodes[1:], compute).node == "b"  # it died alone, on the last node
