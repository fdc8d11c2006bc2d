"""The command line, a configuration that trains in seconds, and a dataset for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_kplm.imaging.synthetic.category import write_category

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240


@pytest.fixture(scope="session")
def small() -> list[str]:
    return [
        "network.image_size=64", "network.width=32", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
        "keypoints.detector=orb", "keypoints.limit=20", "method.landmarks=5", "method.clusters=12",
        "stage1.batch_size=4", "stage1.warmup_iterations=60", "stage1.rounds=1", "stage1.round_iterations=30",
        "stage1.learning_rate=1e-3", "stage1.pair_weighting=balanced", "stage1.descriptor_weight=1",
        "stage2.iterations=60", "stage2.batch_size=8", "stage2.learning_rate=1e-3", "compute.checkpoint_iterations=10",
        "compute.rounds_per_fit=9",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def kplm():
    """Starts `kplm ...` with a Ray of its own."""

    def start(*arguments, **options) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "ray_kplm.cli", *map(str, arguments)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    return start


@pytest.fixture(scope="session")
def finish(kplm):
    """Runs `kplm ...` to its end, which must be a good one: its output and its log."""

    def run(*arguments) -> tuple[str, str]:
        process = kplm(*arguments)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err[-2000:]
        return out, err

    return run


@pytest.fixture(scope="session")
def folder(finish, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("e2e")
    (folder / "empty.yaml").write_text("")
    write_category(folder / "images", 120, size=64)
    finish("ingest", folder / "images", folder / "dataset", "--part-images", 32)
    return folder
