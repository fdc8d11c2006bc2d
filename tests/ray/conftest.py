"""One local Ray for all tests that need one, and a real dataset."""

import logging
import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(REPOSITORY),
}


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray of four logical CPUs: room for a train worker, a pool of workers and the reading tasks. What asks for a GPU
    is given a promise of one."""
    import ray

    from ray_kplm.runtime import session

    os.environ.update(session.ENVIRONMENT | session.LOCAL | ENVIRONMENT)  # all processes of a local Ray inherit it

    ray.init(
        address="local",  # not the cluster that another test left in /tmp/ray
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def kill_workers(ray_cluster):
    """SIGKILLs worker processes by what is in their title; the number of those killed. Of this Ray only, all its processes
    being children of this one: tests that run beside this one have theirs."""

    def kill(title: str, most: int = 99) -> int:
        killed = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may end meanwhile
                if killed < most and title in " ".join(process.cmdline()):
                    process.kill()
                    killed += 1
        return killed

    return kill


@pytest.fixture(scope="session")
def face_ytf68() -> Path:
    """3495 + 732 faces with 68 landmarks; third-party pictures, so they lie beside the repository."""
    path = REPOSITORY.parent / "shared" / "data" / "face_ytf68"
    if not path.exists():
        pytest.skip(f"no {path}: real faces are not part of the repository")
    return path
