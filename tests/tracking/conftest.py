"""Runs that are track_run, finished ones made without training, and a real MLflow server."""

import io
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import torch

from ray_kplm.config import Config, load_config
from ray_kplm.methods.channels import Channels
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run

ROOT = Path(__file__).parents[2]
SMALL = [
    "seed=7", "network.image_size=64", "network.width=32", "network.depth=2", "network.groups=4", "method.landmarks=5",
    "compute.precision=fp32",
]  # fmt: skip
DATASET = {"name": "cats"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder of runs: those of a module share its store, which takes a second to make."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def copy_store(place):
    """Puts a copy of the module's store somewhere, in place of making another one."""

    def copy(target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        if (place / "mlflow.db").exists():
            shutil.copy(place / "mlflow.db", target)

    return copy


@pytest.fixture(scope="module")
def numbers():
    return itertools.count()


@pytest.fixture
def run(place, numbers, monkeypatch) -> Run:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = Run.start(load_config(None, [f"run={place / f'run{next(numbers)}'}", *SMALL]))
    run.save()
    return run


@pytest.fixture
def finish():
    """Puts a detector with seeded weights, as stage 2 leaves it, into a run."""

    def make(run: Run) -> Run:
        torch.manual_seed(0)
        config: Config = run.config
        network = LandmarkNetwork(config.network, config.method.landmarks)
        buffer = io.BytesIO()
        torch.save({"network": network.state_dict(), "optimiser": {"state": {}}}, buffer)
        flip_map = np.array([1, 0, 2, -1, -1], np.int16)
        step = run.step("stage2", "train", {}, {})
        step.folder.write_bytes("network.pt", buffer.getvalue())
        channels = replace(Channels.first(np.ones(len(flip_map), bool)), flip_map=flip_map)
        step.folder.write_json("channels.json", channels.to_dict())
        step.finish()
        return run

    return make


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)


@pytest.fixture(scope="session")
def client():
    """The MLflow client of a run's store."""
    return lambda run: mlflow.MlflowClient(tracking_uri=run.folder.read_json("mlflow.json")["tracking_uri"])


@pytest.fixture(scope="session")
def stored(client):
    """A run as MLflow has it."""
    return lambda run: client(run).get_run(run.folder.read_json("mlflow.json")["run_id"])


@pytest.fixture(scope="session")
def curve(client):
    """(step, value) of a metric, as MLflow has it."""

    def read(run: Run, name: str) -> list[tuple[int, float]]:
        history = client(run).get_metric_history(run.folder.read_json("mlflow.json")["run_id"], name)
        return [(metric.step, metric.value) for metric in sorted(history, key=lambda m: (m.step, m.timestamp))]

    return read


class Server:
    """`mlflow server` with a database and artifacts in a folder, on a port of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Unless it is up."""
        if self._process is not None:
            return
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight processes that nothing here needs
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={self._port}", "--workers=1",
                 f"--backend-store-uri=sqlite:///{self._folder}/server.db",
                 f"--artifacts-destination={self._folder / 'artifacts'}"],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 900
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "mlflow server does not answer"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _family(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        return [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL, as a machine that fails."""
        family = self._family()
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=30)
        self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and does not answer."""
        for process in self._family():
            process.suspend()
        yield
        for process in self._family():
            process.resume()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()
