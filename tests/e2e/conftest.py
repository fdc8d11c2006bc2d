"""The command line as processes, and a dataset for it. Every command that trains takes its own Ray, so these tests are slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_kplm.imaging.synthetic.category import write_category

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def small(small_config) -> list[str]:
    """`small_config` with trainings that last long enough to be killed in."""
    return [
        *small_config, "stage1.warmup_iterations=60", "stage1.round_iterations=30", "stage2.iterations=60"
    ]  # fmt: skip


@pytest.fixture(scope="session")
def kplm():
    """Start `kplm ...`; it takes a Ray of its own."""

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
    """Run `kplm ...` to its end, which must be a success; return its output and its log."""

    def run(*arguments, deadline_s=DEADLINE_S) -> tuple[str, str]:
        process = kplm(*arguments)
        out, err = process.communicate(timeout=deadline_s)
        assert process.returncode == 0, err[-2000:]
        return out, err

    return run


@pytest.fixture(scope="session")
def folder(finish, tmp_path_factory) -> Path:
    """A folder with the synthetic category as `dataset`, an empty configuration file, and room for runs."""
    folder = tmp_path_factory.mktemp("e2e")
    (folder / "empty.yaml").write_text("")
    write_category(folder / "images", 120, size=64)
    finish("ingest", folder / "images", folder / "dataset", "--part-images", 32)
    return folder
