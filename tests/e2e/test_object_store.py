"""Dataset, run and predictions on an object store, whose address workers get from the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.run import Run
from ray_kplm.storage import Folder

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.pipeline import discover
from ray_kplm.steps.ingest import ingest
from ray_kplm.inference.images import PredictOptions, predict_images
from ray_kplm.runtime.session import session

source, store, *options = sys.argv[1:]
config = load_config(None, [f"dataset={store}/dataset", f"run={store}/runs/first", *options])
with session(config.compute):
    ingested = ingest(source, config.dataset, IngestOptions(part_images=16))
    run, worked = discover(config)
    again = discover(config)[1]
    predicted = predict_images(run, config.dataset, f"{store}/landmarks", PredictOptions(split="test", csv=True))
print(json.dumps({"images": ingested.images, "worked": [worked, again], "predicted": predicted.images}))
"""


@pytest.fixture
def answer(s3, small, tmp_path):
    """What SCRIPT prints."""
    write_category(tmp_path / "images", 48, size=64)
    quick = ["stage1.warmup_iterations=15", "stage1.round_iterations=15", "stage2.iterations=15"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "images"), s3, *small, *quick],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_dataset_run_and_predictions_can_be_on_an_object_store(answer, s3, tmp_path):
    assert answer["worked"] == [True, False]
    assert answer["predicted"] == answer["images"]["test"] > 0
    run = Run.open(f"{s3}/runs/first")
    assert run.rounds() == [0, 1]
    assert run.manifest("stage2")["iterations"] == 15
    # The driver's lock file is deleted too.
    assert run.folder.names() == ["config.yaml", "mlflow.json", "number_format.json", "versions.json"]
    assert (run.folder / "stage2").names() == ["channels.json", "manifest.json", "metrics.json", "network.pt"]
    assert not [name for name in (run.folder / "stage2").folders() if (run.folder / "stage2" / name).names()]
    lines = Folder.at(f"{s3}/landmarks").read_bytes("landmarks.csv").decode().splitlines()
    assert len(lines) == 1 + answer["predicted"] * 5
    local = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert local in (["images"], ["images", "mlartifacts"])
