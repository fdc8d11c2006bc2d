"""A finished run and its dataset, made without Ray."""

import io

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.datasets.dataset import PartBuilder
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.draw import encode_png
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.storage import Folder

SMALL = [
    "network.image_size=64", "network.width=16", "network.depth=2", "network.groups=4", "method.landmarks=4",
    "method.mirror=none", "compute.precision=fp32", "compute.threads=1",
]  # fmt: skip
COUNTS = {"train": 5, "test": 7}


@pytest.fixture
def noise_run(tmp_path) -> Run:
    """A finished run with seeded weights that holds no landmarks yet, and its dataset of two parts a split."""
    root, table = Folder.at(tmp_path / "dataset"), {}
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        rows = [count - 2, 2]
        for number, size in enumerate(rows):
            part = PartBuilder(0)
            for i in range(size):
                image = rng.integers(0, 256, (64, 48, 3), np.uint8)
                name = f"{split}/{number}-{i}"
                part.add(name, encode_png(image), image, None, coordinates.translation(0, 0), {})
            (root / split / "images").write_table(f"part-0000{number}.parquet", part.tables().images)
        table[split] = {"images": count, "parts": ["part-00000.parquet", "part-00001.parquet"], "rows": rows}
    root.write_json("dataset.json", {"name": "noise"})
    root.write_json("manifest.json", {"kind": "dataset", "fingerprint": "f" * 64, "splits": table, "landmarks": 0})
    run = Run.start(load_config(None, [f"dataset={root.path}", f"run={tmp_path / 'run'}", *SMALL])).save()
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save({"network": LandmarkNetwork(run.config.network, 4).state_dict()}, buffer)
    stage2 = run.step("stage2", "train", {}, {})
    stage2.folder.write_bytes("network.pt", buffer.getvalue())
    stage2.folder.write_json(CHANNELS, Channels.first(np.ones(4, bool)).to_dict())
    stage2.finish()
    return run
