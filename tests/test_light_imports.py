"""A detector needs few packages: it loads and predicts without those of training, and without what Linux alone has."""

import importlib.metadata
import json
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ray_kplm.config import load_config
from ray_kplm.detectors.stored import export
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.channels import Channels
from ray_kplm.network.hourglass import LandmarkNetwork
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking.model import model_requirements

ROOT = Path(__file__).parents[1]
BLOCKED = [
    "faiss", "ray", "mlflow", "fcntl", "resource", "albumentations", "networkx", "sklearn", "matplotlib", "jinja2", "shtab",
    "scipy", "threadpoolctl", "psutil",
]  # fmt: skip
PREDICT = """
    import errno, json, os, sys
    for name in ("EREMOTEIO", "EDQUOT"):  # as on macOS, as on Windows
        delattr(errno, name)
    if hasattr(os, "sched_getaffinity"):
        del os.sched_getaffinity
    folder, image, *blocked = sys.argv[1:]

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in blocked:
                raise ModuleNotFoundError(f"{name} is blocked", name=name)

    sys.meta_path.insert(0, Block())
    before = set(sys.modules)
    import numpy as np
    from ray_kplm import LandmarkDetector
    found = LandmarkDetector.load(folder, device="cpu").predict([np.load(image), image + ".png"])
    origins = {name.split(".")[0] for name in set(sys.modules) - before}
    print(json.dumps([[one.xy.tolist() for one in found], sorted(origins - set(sys.stdlib_module_names))]))
"""


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
def picture(tmp_path_factory) -> Path:
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    path = tmp_path_factory.mktemp("picture") / "a.npy"
    np.save(path, image)
    cv2.imwrite(f"{path}.png", image[:, :, ::-1])
    return path


def predict_without(blocked, detector, picture) -> tuple[list, list[str]]:
    code = textwrap.dedent(PREDICT)
    ended = subprocess.run(
        [sys.executable, "-c", code, detector, picture, *blocked], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return tuple(json.loads(ended.stdout))


def test_a_detector_predicts_without_the_packages_of_training(detector, picture):
    (by_array, by_file), used = predict_without(BLOCKED, detector, picture)
    expected = LandmarkDetector.load(detector, device="cpu").predict([np.load(picture)])[0].xy
    np.testing.assert_allclose([by_array, by_file], [expected, expected], atol=1e-4)
    assert not set(used) & set(BLOCKED)


def below(names: set[str]) -> set[str]:
    """The distributions of these names, and those that they require, without the extras."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        with suppress(importlib.metadata.PackageNotFoundError):
            requires = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [canonicalize_name(r.name) for r in requires if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


def test_the_requirements_of_the_logged_model_bring_all_that_it_imports(detector, picture):
    """What the package itself requires does not count: it is installed without in a small image."""
    listed = {Requirement(line).name for line in model_requirements()}
    brought = below(listed - {"ray-kplm"})
    homes = importlib.metadata.packages_distributions()
    others = [
        m for m, names in homes.items() if not {canonicalize_name(name) for name in names} & (brought | {"ray-kplm"})
    ]
    assert {"faiss", "ray", "albumentations"} <= set(others)
    (by_array, _), used = predict_without(others, detector, picture)
    assert np.shape(by_array) == (3, 2)
    assert "ray_kplm" in used


def test_training_without_faiss_is_an_error_of_one_line():
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "from ray_kplm.correspondence.assignment import faiss_search\nfaiss_search().prepare(None)(None)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "ConfigError: the package faiss is not installed" in ended.stderr.splitlines()[-1]
