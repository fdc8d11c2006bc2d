"""What is decided before a prediction: the number format, and what a detector can be asked; no Ray is started."""

import numpy as np
import pytest

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.errors import ConfigError
from ray_kplm.inference import images
from ray_kplm.methods.predictors import LandmarkPredictorFactory
from ray_kplm.run import Run
from ray_kplm.storage import Folder


class Sent(Exception):
    """Raised in place of work on workers, with the layout that these would get."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute


def test_the_driver_decides_the_number_format_for_all_workers(tmp_path, monkeypatch):
    """Images outside of the run: on a CPU that cannot multiply bf16, which the run was begun with, they are not slow."""
    splits = {"train": {"parts": ["part-00000.parquet"], "rows": [9], "images": 9}}
    manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
    Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
    Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "cats"})
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: ["amx_bf16"])
    run = Run.start(load_config(None, [f"run={tmp_path / 'run'}"])).save()
    run.step("stage2", "landmarks", {}, {}).finish()
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: ["avx2"])
    make = LandmarkPredictorFactory(run.config, run.folder, np.zeros(2, np.int16), True)
    monkeypatch.setattr(images, "landmark_predictor", lambda run, points: make)

    class Elsewhere:
        def layout(self, compute):
            return compute

        def share(self, value):
            return value

        def map(self, worker, arguments, *rest):
            raise Sent(arguments["make"].config.compute)

    for gpus, expected in ((0, ("fp32", "no")), (1, ("bf16", "yes"))):
        config = load_config(None, [f"run={tmp_path / 'run'}", f"compute.gpus_per_worker={gpus}"])
        with pytest.raises(Sent) as sent:
            images.predict_images(
                run, tmp_path / "dataset", tmp_path / f"out{gpus}", config=config, workers=Elsewhere()
            )
        assert (sent.value.compute.precision, sent.value.compute.channels_last) == expected


def test_a_least_probability_is_refused_for_a_detector_that_gives_none(tmp_path, monkeypatch):
    run = Run.start(load_config(None, [f"run={tmp_path / 'run'}"])).save()
    make = LandmarkPredictorFactory(run.config, run.folder, np.zeros(2, np.int16), True)
    monkeypatch.setattr(images, "landmark_predictor", lambda run, points: make)
    with pytest.raises(ConfigError, match=r"--min-probability 0\.7: .* gives no probabilities; `kplm train` again"):
        images.predict_images(run, tmp_path, tmp_path / "out", images.PredictOptions(min_probability=0.7))
    assert images.PredictOptions().least == 0.5
    with pytest.raises(ConfigError, match="min_probability"):
        images.PredictOptions(min_probability=1.5)
