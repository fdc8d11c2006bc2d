"""The number format that workers get, whatever machine a run goes on; no Ray is started and nothing is computed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ray_kplm.analysis import embedding, evaluate, label_free
from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.datasets.dataset import Dataset
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.methods.channels import Channels
from ray_kplm.network.compute import Placement
from ray_kplm.progress import ProgressDisplay
from ray_kplm.run import Run
from ray_kplm.steps import discovery
from ray_kplm.steps.discovery import Discovery
from ray_kplm.storage import Folder

CPU = torch.device("cpu")


class Sent(Exception):
    """Raised in place of work on workers, with the layout that these would get."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute


@pytest.fixture
def resumed(tmp_path, monkeypatch) -> Run:
    """A run begun where bf16 is multiplied, which goes on where it is not."""
    splits = {"train": {"parts": ["part-00000.parquet"], "rows": [9], "images": 9}}
    manifest = {"kind": "dataset", "fingerprint": "f", "landmarks": 0, "splits": splits}
    Folder.at(tmp_path / "dataset").write_json("manifest.json", manifest)
    Folder.at(tmp_path / "dataset").write_json("dataset.json", {"name": "cats"})
    config = load_config(None, [f"dataset={tmp_path / 'dataset'}", f"run={tmp_path / 'run'}", "stage1.rounds=1"])
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: ["amx_bf16"])
    Run.start(config).save()
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: ["avx2"])
    return Run.start(config)


def test_all_workers_of_a_run_have_the_format_that_it_was_begun_with(resumed, monkeypatch):
    assert Placement.choose(resumed.config.compute, CPU).autocast is None  # what a worker would choose here
    dataset = Dataset.open(resumed.config.dataset)
    whole = full_selection(dataset.parts("train"), dataset.rows("train"))
    run = Discovery(resumed, dataset, ProgressDisplay)
    channels = Channels.first(np.ones(2, bool))
    step = resumed.step("somewhere", "some", {}, {})

    def sends(module, name, config_of):
        def send(*arguments, **options):
            raise Sent(config_of(*arguments).compute)

        monkeypatch.setattr(module, name, send)

    sends(discovery, "extract", lambda extraction, *rest: extraction.config)
    sends(discovery, "merge_channels", lambda merging, *rest: merging.config)
    sends(discovery, "relabel", lambda work, *rest: work.config)
    sends(run._pool, "train", lambda step, training, *rest: training.config)
    sends(evaluate, "predict", lambda predictions, config, *rest: config)
    sends(embedding, "extract", lambda extraction, *rest: extraction.config)
    sends(label_free, "map_parts", lambda worker, arguments, *rest: arguments["work"].config)
    monkeypatch.setattr(label_free, "_detector", lambda run, stage: (None, np.zeros(2), {"fingerprint": "f"}))
    monkeypatch.setattr(evaluate, "predictor", lambda run, stage: (None, {"fingerprint": "f"}))
    monkeypatch.setattr(discovery, "RoundImages", SimpleNamespace(load=lambda *arguments: None))
    plan = SimpleNamespace(iterations=1)
    for work in (
        lambda: run._extract(step, 0),
        lambda: run._merge_channels(step, 0, step, channels, np.ones(2)),
        lambda: run._relabel(step, 0, step, channels),
        lambda: run._train(step, "", None, None, plan, run.method.round_schedule(0), whole, None, (1, 0)),
        lambda: evaluate.landmarks_of(resumed, dataset, "train"),
        lambda: embedding._described(resumed, dataset, whole, 0, resumed.folder),
        lambda: label_free.measure_quality(resumed),
    ):
        with pytest.raises(Sent) as sent:
            work()
        assert Placement.choose(sent.value.compute, CPU).autocast == torch.bfloat16


def test_the_configuration_that_fingerprints_are_made_of_says_auto(resumed):
    run = Discovery(resumed, Dataset.open(resumed.config.dataset), ProgressDisplay)
    assert {step.reads["compute"]["precision"] for step in run._steps if "compute" in step.reads} == {"auto"}
