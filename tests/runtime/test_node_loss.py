"""K-means on a cluster of three nodes, of which one is lost while it runs.

The cluster is a Ray of its own, so the test is a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, threading
import numpy as np, ray
sys.path[:0] = [sys.argv[1]]
from ray_kplm.config import load_config
from ray_kplm.correspondence.features import features_table
from ray_kplm.methods import build_method
from ray_kplm.correspondence.clusters import read_clusters
from ray_kplm.runtime.kmeans_actors import cluster_with_actors
from ray_kplm.runtime.local_cluster import LocalCluster
from ray_kplm.storage import Folder

cluster = LocalCluster(2, (1, 1))
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR",
         runtime_env={"env_vars": {"PYTHONPATH": sys.argv[1]}})
root, rng = Folder.at(sys.argv[2]), np.random.default_rng(0)
for part in range(6):
    points = rng.normal(size=(2, 4000, 32))
    points = np.float16(points / np.linalg.norm(points, axis=2, keepdims=True))
    table = features_table([f"{part}/{i}" for i in range(400)], np.full((400, 2), 90), np.full(400, 10),
                     rng.uniform(0, 90, (4000, 2)), rng.random(4000), *points)
    (root / "features").write_table(f"part-{part:05d}.parquet", table)
method = build_method(
    load_config(None, ["method.landmarks=5", "method.clusters=40", "clustering.n_init=12", "clustering.tolerance=0"])
)

def run(name, progress):
    target = root / name
    features = root / "features"
    facts = cluster_with_actors(features, features.parts(), target / "labels", target, method, 1, None, progress)
    tables = [(target / "labels").read_table(part) for part in (target / "labels").parts()]
    return facts, tables, read_clusters(target)

undisturbed = run("undisturbed", lambda share, text: None)
places, removed = {}, []
def progress(share, text):
    if not removed:  # at the first call: the node must be lost before the fit ends
        removed.append(True)
        places.update((title, cluster.count(title)) for title in ("_ShardActor", "CorrespondenceActor"))
        threading.Thread(target=cluster.replace_node, args=["_ShardActor"]).start()
lost = run("lost", progress)
same = all(a.equals(b) for a, b in zip(undisturbed[1], lost[1], strict=True))
same &= all(np.array_equal(undisturbed[2][n], lost[2][n]) for n in undisturbed[2])
print(json.dumps({"shards": undisturbed[0]["shards"], "rebuilt": lost[0]["shards_rebuilt"], "places": places, "same": same}))
ray.shutdown()
cluster.__exit__(None, None, None)
"""


@pytest.mark.slow
def test_a_lost_node_does_not_change_the_labels(tmp_path):
    repository = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repository, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = [line for line in done.stdout.splitlines() if line.startswith('{"shards"')]  # Ray prints there too
    found = json.loads(result)
    assert found.pop("rebuilt") >= 1  # twice, if the new actor was sent to the dying node once more
    places = {"_ShardActor": [1, 1, 1], "CorrespondenceActor": [1, 0, 0]}
    assert found == {"shards": 3, "places": places, "same": True}
