"""What the processes of a cluster are told."""

import json

import numpy as np
import pytest
import ray

from ray_kplm.config import ComputeConfig, WorkerRange
from ray_kplm.steps.session import ENVIRONMENT, _for_workers, needed_cpus, object_store_mib


def test_workers_learn_where_storage_is_and_no_keys(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = _for_workers()
    assert told["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert told.items() >= ENVIRONMENT.items()
    assert "secret" not in told.values()


def test_what_a_job_brings_along_is_its_own(monkeypatch):
    given = {"env_vars": {"NO_ALBUMENTATIONS_UPDATE": "0", "AWS_ENDPOINT_URL": "https://there"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": given}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://there")
    told = _for_workers()
    assert not told.keys() & given["env_vars"].keys()  # Ray refuses names that come from both
    assert told.keys() | given["env_vars"].keys() >= ENVIRONMENT.keys()


@pytest.mark.parametrize(("workers", "expected"), [(1, 3), (4, 9), (WorkerRange(2, 8), 5)])
def test_what_a_run_cannot_do_without(workers, expected):
    assert needed_cpus(ComputeConfig(workers=workers)) == expected


def test_the_object_store_is_measured(ray_cluster):
    before = object_store_mib()
    kept = ray.put(np.zeros(20 * 2**20, np.uint8))
    assert object_store_mib() - before == pytest.approx(20, abs=1)
    del kept
