"""Fixtures that tests of several packages share."""

from __future__ import annotations

import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.points.point_set import PointSet
from ray_kplm.run import Run

ROOT = Path(__file__).parents[1]
# Before PyTorch is loaded: threads that spin while they wait take the cores from other tests, which take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that need no Ray first: they fail sooner, and beside them no Ray takes memory."""
    items.sort(key=lambda item: "ray_cluster" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def small_config() -> list[str]:
    """Overrides, `key=value`, of a kplm configuration that runs from keypoints to landmarks in seconds.

    The same numbers result on CPUs with and without bf16.
    """
    return [
        "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "network.descriptor_dim=8",
        "keypoints.detector=orb", "keypoints.limit=20", "method.landmarks=5", "method.clusters=12",
        "method.mirror=partners", "method.drop_static=no", "augment.paste=0", "detection.inside_box=false",
        "detection.calibration_images=40", "stage1.batch_size=4", "stage1.warmup_iterations=20", "stage1.rounds=1",
        "stage1.round_iterations=10", "stage1.learning_rate=1e-3", "stage2.iterations=20", "stage2.batch_size=8",
        "stage2.learning_rate=1e-3", "compute.precision=fp32", "compute.threads=1", "compute.checkpoint_iterations=10",
        "compute.rounds_per_fit=9",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def untrained_run(small_config) -> Callable[..., Run]:
    """Write a finished run of `small_config` whose network is untrained.

    `untrained_run(folder, landmarks, *overrides, seed=3, partners=None)` writes `<folder>/run`; partners: in the mirror image.
    """
    from ray_kplm.config import load_config
    from ray_kplm.methods.channels import CHANNELS, Channels
    from ray_kplm.methods.trainer import NETWORK
    from ray_kplm.network.hourglass import LandmarkNetwork

    def write(
        folder: Path, landmarks: int, *overrides: str, seed: int = 3, partners: Sequence[int] | None = None
    ) -> Run:
        chosen = [*small_config, f"method.landmarks={landmarks}", f"run={folder / 'run'}", *overrides]
        run = Run.start(load_config(None, chosen)).save()
        torch.manual_seed(seed)
        buffer = io.BytesIO()
        torch.save({"network": LandmarkNetwork(run.config.network, landmarks).state_dict()}, buffer)
        flip_map = None if partners is None else np.array(partners, np.int16)
        step = run.step("stage2", "landmarks", {}, {})
        step.folder.write_json(CHANNELS, Channels.first(np.ones(landmarks, bool), flip_map).to_dict())
        step.folder.write_bytes(NETWORK, buffer.getvalue())
        step.finish()
        return run

    return write


@pytest.fixture(scope="session")
def point_sets() -> Callable[[int], dict[str, PointSet]]:
    """Return sets of points of some landmarks, four at least: an edit, and one with a local part in a frame of the object."""
    from ray_kplm.points.layout import Layout
    from ray_kplm.points.regressor import PointRegressor

    def make(landmarks: int) -> dict[str, PointSet]:
        rng = np.random.default_rng(5)
        edit = Layout("", ("nose", "left eye", "right eye"), (0, 2, 1), ((0, 1), (0, 2)))
        reference = rng.normal(size=(landmarks, 2))
        local = PointRegressor(
            rng.normal(size=2 * landmarks), rng.normal(size=4), rng.normal(size=(2 * landmarks, 4)) / 4, "similarity",
            reference - reference.mean(0), rng.normal(size=(6, 2 * landmarks)), rng.normal(size=(6, 4)), 2.0,
        )  # fmt: skip
        shares = np.full((2, landmarks), 1 / landmarks, np.float32)
        return {
            "edited": PointSet.of_groups(edit, [[2, 3], [0], [1]], landmarks),
            "fitted": PointSet(Layout("", ("horn", "tail"), (0, 1)), local, shares),
        }

    return make


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of four logical CPUs and one GPU, shared by all tests of this process that need a Ray.

    Four CPUs have room for a training worker, two data workers and a task. The GPU is a number for the scheduler.
    """
    import ray

    from ray_kplm.runtime import session

    # All processes of a local Ray inherit the environment.
    os.environ.update(session.ENVIRONMENT | session.LOCAL | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    ray.init(
        address="local",  # not a cluster that another process noted in /tmp/ray
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    session.configure_ray_data()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def kill_workers(ray_cluster) -> Callable[..., int]:
    """Send SIGKILL to worker processes of `ray_cluster` whose title has a text in it; return how many were killed.

    Only children of this process are killed: tests in other processes have Rays of their own.
    """

    def kill(title: str, limit: int = 99) -> int:
        killed = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may have ended
                if killed < limit and title in " ".join(process.cmdline()):
                    process.kill()
                    killed += 1
        return killed

    return kill


@pytest.fixture(scope="session")
def small_dataset(ray_cluster, tmp_path_factory) -> Dataset:
    """The synthetic category, 64 px: 48 training images in four parts, 12 test images in one. Not to be written to."""
    from ray_kplm.imaging.synthetic.category import write_category
    from ray_kplm.steps.ingest import ingest

    folder = tmp_path_factory.mktemp("small_dataset")
    write_category(folder / "source", 60, size=64, test_share=0.2)
    ingest(folder / "source", folder / "dataset", IngestOptions(part_images=12))
    return Dataset.open(folder / "dataset")


@pytest.fixture(scope="session")
def face_ytf68() -> Path:
    """3495 + 732 real faces with 68 landmarks, from beside the repository: third-party images are no part of it."""
    path = ROOT.parent / "shared" / "data" / "face_ytf68"
    if not path.exists():
        pytest.skip(f"no {path}: real faces are not part of the repository")
    return path


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on loopback, in this process."""
    server = pytest.importorskip("moto.server", reason="no moto: pip install -e '.[dev]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    running.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch) -> str:
    """`s3://<a new bucket>`, with the environment variables that reach it."""
    environment = {
        "AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": ",".join(filter(None, ("127.0.0.1", os.environ.get("NO_PROXY")))),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from pyarrow import fs

    bucket = f"kplm-{uuid.uuid4().hex[:12]}"
    fs.S3FileSystem(endpoint_override=s3_endpoint, allow_bucket_creation=True).create_dir(bucket)
    return f"s3://{bucket}"
