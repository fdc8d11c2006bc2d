"""What `kplm predict` takes as RUN, told before anything slow is imported."""

import subprocess
import sys

import pytest

from ray_kplm.cli import checks
from ray_kplm.config import load_config
from ray_kplm.errors import RunError
from ray_kplm.methods.channels import CHANNELS
from ray_kplm.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.start(load_config(None, [f"run={tmp_path / 'run'}"])).save()


def test_a_finished_run_and_an_exported_detector_are_detectors_and_others_are_not(run):
    with pytest.raises(RunError, match="stage2 is not finished"):
        checks.detector(run.folder.path)
    assert checks.EXPORTED == CHANNELS
    run.folder.write_json(CHANNELS, {})
    assert checks.detector(run.folder.path).folder.path == run.folder.path
    run.folder.delete_file(CHANNELS)
    step = run.step("stage2", "landmarks", {}, {})
    step.begin()
    step.finish()
    assert checks.detector(run.folder.path).config == run.config


def test_looking_imports_no_torch(run):
    run.folder.write_json(CHANNELS, {})
    code = (
        "import sys; from ray_kplm.cli import checks; checks.detector(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, run.folder.path], check=True)
