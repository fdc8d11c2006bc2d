"""A detector with seeded weights, and pictures. These tests run where only the core of the package and pytest are installed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.detectors.stored import export
from ray_kplm.methods.channels import Channels
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.storage import Folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """The exported detector of a run with seeded weights."""
    folder = tmp_path_factory.mktemp("light")
    small = ["network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "method.landmarks=3"]
    run = Run.start(load_config(None, [f"run={folder / 'run'}", *small, "compute.precision=fp32"]))
    run.save()
    torch.manual_seed(0)
    step = run.step("stage2", "train", {}, {})
    torch.save({"network": LandmarkNetwork(run.config.network, 3).state_dict()}, folder / "network.pt")
    step.folder.write_bytes("network.pt", (folder / "network.pt").read_bytes())
    step.folder.write_json("channels.json", Channels.first(np.ones(3, bool)).to_dict())
    step.finish()
    export(run, Folder.at(folder / "detector"))
    return folder / "detector"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of two pictures, one in a folder of its own, and a broken one."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    (folder / "more").mkdir()
    for name in ("a.png", "more/b.png"):
        picture = rng.integers(0, 256, (64, 48, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), picture)
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    return folder
