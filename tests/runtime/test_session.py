"""Starting and joining a Ray: addresses, environment of the workers, resources."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import ray

from ray_kplm.config import ComputeConfig, WorkerRange
from ray_kplm.runtime.scaling import ALL, trainings_per_fit
from ray_kplm.runtime.session import ENVIRONMENT, _worker_environment, kept_cpus, needed_cpus, object_store_mib

JOIN = """
from ray_kplm.config import ComputeConfig
from ray_kplm.runtime.session import session

with session(ComputeConfig()):
    pass
"""
LOCAL_CLUSTER = """
from pathlib import Path

from ray_kplm.runtime.local_cluster import LocalCluster
from ray_kplm.runtime.ray_private import get_ray_address_file

with LocalCluster(1, ()):
    print(Path(get_ray_address_file(None)).read_text())
"""


def python(script, **environment):
    """Run the script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True, timeout=100
    )


def test_workers_get_the_address_of_storage_and_no_keys(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    environment = _worker_environment()
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert environment.items() >= ENVIRONMENT.items()
    assert "secret" not in environment.values()


def test_environment_variables_of_a_job_are_not_set_again(monkeypatch):
    given = {"env_vars": {"NO_ALBUMENTATIONS_UPDATE": "0", "AWS_ENDPOINT_URL": "https://there"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": given}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://there")
    environment = _worker_environment()
    assert not environment.keys() & given["env_vars"].keys()  # Ray refuses names that come from both
    assert environment.keys() | given["env_vars"].keys() >= ENVIRONMENT.keys()


@pytest.mark.parametrize(("workers", "expected"), [(1, 3), (4, 9), (WorkerRange(2, 8), 5)])
def test_a_run_needs_cpus_for_workers_their_data_and_one_task(workers, expected):
    assert needed_cpus(ComputeConfig(workers=workers)) == expected


@pytest.mark.parametrize("cpus_per_worker", [0.0, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("extract_workers", [1, 3])
def test_on_a_local_ray_workers_of_a_fixed_number_stay(cpus_per_worker, extract_workers):
    compute = ComputeConfig(workers=2, extract_workers=extract_workers, cpus_per_worker=cpus_per_worker)
    cpus = kept_cpus(compute, 1)
    assert trainings_per_fit(compute, {"CPU": cpus}) == ALL
    assert kept_cpus(compute, 3) >= 3 * (cpus - 2) + 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_without_a_ray_is_an_error_of_one_line(address):
    done = python(JOIN, RAY_ADDRESS=address)
    assert "ClusterError: RAY_ADDRESS=" + address in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_local_cluster_does_not_become_the_default_ray_of_the_machine():
    with tempfile.TemporaryDirectory(prefix="ray-") as temporary:  # a short path: there are sockets in it
        noted = Path(temporary) / "ray" / "ray_current_cluster"
        noted.parent.mkdir()
        noted.write_text("192.0.2.1:6379")
        done = python(LOCAL_CLUSTER, RAY_TMPDIR=temporary)
        assert done.returncode == 0, done.stderr
        assert next(noted.parent.glob("session_*"))  # it used this folder
        assert done.stdout.strip() == noted.read_text() == "192.0.2.1:6379"


def test_the_object_store_grows_by_what_is_put_there(ray_cluster):
    before = object_store_mib()
    kept = ray.put(np.zeros(20 * 2**20, np.uint8))
    assert object_store_mib() - before == pytest.approx(20, abs=1)
    del kept
