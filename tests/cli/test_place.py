"""Where a prediction works."""

import importlib.util

import pytest

from ray_kplm.cli.place import workers_for
from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ConfigError
from ray_kplm.parts import ThisProcess

ADDRESS, JOB = "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in (ADDRESS, JOB):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("workers", "gpus"), [(1, 0), (4, 0), (1, 1)])
def test_without_a_cluster_this_process_works(workers, gpus):
    with workers_for(ComputeConfig(extract_workers=workers, gpus_per_worker=gpus)) as place:
        assert isinstance(place, ThisProcess)


@pytest.mark.parametrize(("set_", "gpus"), [(ADDRESS, 0), (JOB, 0), ("", 1)])
def test_a_cluster_and_several_gpus_need_ray(monkeypatch, set_, gpus):
    if set_:
        monkeypatch.setenv(set_, "{}")
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ray" else found(name))
    place = workers_for(ComputeConfig(extract_workers=2, gpus_per_worker=gpus))
    with (
        pytest.raises(ConfigError, match=r"the package ray is not installed: .* pip install \"ray-kplm\[cpu\]\""),
        place,
    ):
        pass
