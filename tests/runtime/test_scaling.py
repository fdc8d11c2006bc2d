"""The number of training workers: by the resources of the cluster and by the batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from ray_kplm.config import ComputeConfig, WorkerRange
from ray_kplm.runtime.scaling import ALL, ScaleUpRequest, choose, choose_now, trainings_per_fit, workers_that_fit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("options", "nodes", "expected"),
    [
        ({}, [{"CPU": 4}], 1),  # two and their data workers would leave none
        ({}, [{"CPU": 5}], 2),
        ({}, [{"CPU": 2}, {"CPU": 3}], 2),
        ({}, [{"CPU": 2}], 0),
        ({}, [], 0),
        ({"cpus_per_worker": 4.0}, [{"CPU": 3}, {"CPU": 3}, {"CPU": 7}], 1),  # a worker does not span nodes
        ({"gpus_per_worker": 1.0}, [{"CPU": 8}, {"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 1}], 5),
        ({"gpus_per_worker": 1.0}, [{"CPU": 64}], 0),
        ({"gpus_per_worker": 1.0, "data_workers": 7}, [{"CPU": 8, "GPU": 4}], 0),  # 4 GPUs, but data for none
        ({"cpus_per_worker": 0.0, "workers": 3}, [{"CPU": 5}], 3),
        ({"gpus_per_worker": 0.1}, [{"CPU": 64, "GPU": 1}], 10),
    ],
)  # fmt: skip
def test_a_worker_needs_its_data_workers_too_and_one_cpu_stays_free(options, nodes, expected):
    assert workers_that_fit(ComputeConfig(**options), nodes) == expected


def test_the_number_of_workers_divides_the_batch():
    compute = ComputeConfig(workers=WorkerRange(2, 6))
    assert [choose(compute, 12, available) for available in range(9)] == [2, 2, 2, 3, 4, 4, 6, 6, 6]
    assert choose(compute, 15, 4) == 3
    assert choose(compute, 15, 1) == 3  # fewer are not allowed: it waits


def test_a_request_for_more_workers_reserves_nothing_beside_them(ray_cluster):
    """`ray_cluster` has one GPU."""
    compute = ComputeConfig(workers=WorkerRange(1, 2), gpus_per_worker=1)
    assert choose_now(compute, 4) == 1
    workers, more = placement_group([{"CPU": 1, "GPU": 1}]), ScaleUpRequest(compute, 1)
    assert workers.wait(30), "choosing the number reserved something"
    more.submit()
    more.submit()
    pending = [group for group in placement_group_table().values() if group["state"] == "PENDING"]
    assert [group["bundles"] for group in pending] == [{0: {"CPU": 1.0, "GPU": 1.0}}]
    remove_placement_group(workers)
    more.close()
    workers = placement_group([{"CPU": 1, "GPU": 1}])
    assert workers.wait(30)
    remove_placement_group(workers)


@pytest.mark.parametrize(
    ("options", "cpus", "expected"),
    [
        ({"rounds_per_fit": 3}, 0, 3),
        ({"workers": 2, "extract_workers": 2}, 4, ALL),
        ({"workers": 2, "extract_workers": 2}, 3, 1),  # extraction would wait for the workers
        ({"workers": 2, "extract_workers": 1, "cpus_per_worker": 0.25}, 1.5, ALL),
        ({"workers": WorkerRange(1, 4)}, 64, 1),  # another number next time
        ({"workers": 2, "gpus_per_worker": 1.0}, 0, ALL),  # they extract themselves
        ({"workers": 2, "gpus_per_worker": 1.0, "extract_workers": 4}, 64, 1),  # more extract than train
    ],
)
def test_workers_stay_where_the_rest_of_a_round_has_room(options, cpus, expected):
    assert trainings_per_fit(ComputeConfig(**options), {"CPU": cpus}) == expected


SCRIPT = """
import json, os, sys
os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "12"
from pathlib import Path
import numpy as np, pyarrow as pa, ray
sys.path[:0] = [sys.argv[1]]
from ray_kplm.runtime.ray_private import Cluster
from ray_kplm import config as configuration, schemas
from ray_kplm.correspondence.features import ragged, ragged_points
from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.methods import build_method
from ray_kplm.methods.labels import keypoint_labels
from ray_kplm.run import Run
from ray_kplm.runtime.image_store import RoundImages
from ray_kplm.steps.ingest import ingest
from ray_kplm.runtime.session import session
from ray_kplm.runtime.train_loop import Training
from ray_kplm.runtime.train_workers import train
from ray_kplm.storage import Folder

root = Path(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
os.environ["RAY_ADDRESS"] = cluster.address
os.environ["PYTHONPATH"] = sys.argv[1]
config = configuration.load_config(None, [
    *sys.argv[3:], "stage1.negative_pairs=200", "stage1.warmup_iterations=30", "compute.checkpoint_iterations=20",
    "compute.rounds_per_fit=1", "compute.workers={min: 1, max: 3}", f"run={root / 'run'}",
])
with session(config.compute):
    write_category(root / "source", 24, size=64, test_share=0.2)
    ingest(root / "source", root / "dataset", IngestOptions(part_images=8))
    data, keypoints = Dataset.open(root / "dataset"), Folder.at(root / "keypoints")
    rng = np.random.default_rng(0)
    for part, rows in zip(data.parts("train"), data.rows("train"), strict=True):
        counts = np.full(rows, 6)
        columns = [data.images("train").read_table(part, ["image_id"])["image_id"],
                   ragged_points(rng.uniform(5, 58, (6 * rows, 2)), counts), ragged(np.ones(6 * rows, np.float32), counts)]
        keypoints.write_table(part, pa.Table.from_arrays(columns, schema=schemas.KEYPOINTS))
    selection = full_selection(data.parts("train"), data.rows("train"))

    run = Run.start(config).save()

    def step(name):
        labels, method = keypoint_labels(keypoints.read_tables(selection.parts)), build_method(config)
        training = Training(config, method.objective(0), labels, method.round_plan(0, labels.usable()),
                            method.round_schedule(0), RoundImages.load(data.images("train"), selection), None, (0, 1, 0))
        manifest = train(run.step(name, "train", {}, {}), training, lambda done, metrics: None)
        return manifest["workers"], manifest["iterations"]

    found = {"alone": step("a")}
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    found["joined"] = step("b")
    cluster.remove_node(node)
    cluster.wait_for_nodes()
    found["left"] = step("c")
print(json.dumps(found))
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_joining_node_adds_a_worker_to_the_next_step_and_a_leaving_one_removes_it(tmp_path, small_config):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path), *small_config],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = [line for line in done.stdout.splitlines() if line.startswith('{"alone')]  # Ray prints there too
    # three fit no batch of four
    assert json.loads(result) == {"alone": [1, 30], "joined": [2, 30], "left": [1, 30]}
