"""A detector needs few packages: it loads and predicts without those of training, and without what Linux alone has."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import textwrap
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ray_kplm.extras import EXTRAS
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.tracking.model import model_requirements

ROOT = Path(__file__).parents[2]
BLOCKED = [*EXTRAS, "fcntl", "resource"]
needs_all = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the packages of training are not installed"
)
PREDICT = """
    import contextlib, errno, importlib.machinery, io, json, os, signal, sys
    for name in ("EREMOTEIO", "EDQUOT"):  # as on macOS, as on Windows
        if hasattr(errno, name):
            delattr(errno, name)
    for module, name in ((os, "sched_getaffinity"), (signal, "pthread_kill")):
        if hasattr(module, name):
            delattr(module, name)
    detector, pictures, out, *blocked = sys.argv[1:]

    class Without:  # a finder that does not find what is blocked, as where it is not installed
        def __init__(self, finder):
            self.finder = finder

        def find_spec(self, name, path=None, target=None):
            return None if name.split(".")[0] in blocked else self.finder.find_spec(name, path, target)

        def __getattr__(self, name):
            return getattr(self.finder, name)

    import psutil  # on Linux it imports `resource`
    sys.meta_path[:] = map(Without, sys.meta_path)
    before = set(sys.modules)
    from ray_kplm import LandmarkDetector
    at_import = set(sys.modules) - before
    found = LandmarkDetector.load(detector, device="cpu").predict([pictures + "/a.png", pictures + "/more/b.png"])
    from ray_kplm.cli.main import main

    def run(*arguments):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                code = main(arguments)
            except SystemExit as ended:
                code = ended.code
        return [code, said.getvalue()]

    commands = {
        "predict": run("predict", detector, pictures, out, "--csv", "--coco", "--device", "cpu"),
        "verify": run("verify", out),
        "help": run("--help"),
        "configs": run("configs"),
        "ingest": run("ingest", pictures, out + "_dataset"),
    }
    origins = lambda names: sorted({name.split(".")[0] for name in names} - set(sys.stdlib_module_names))
    answer = {"xy": [one.xy.tolist() for one in found], "at_import": origins(at_import), "commands": commands}
    print(json.dumps({**answer, "used": origins(set(sys.modules) - before)}))
"""


def predict_without(blocked, detector, pictures, out) -> dict:
    code = textwrap.dedent(PREDICT)
    ended = subprocess.run(
        [sys.executable, "-c", code, detector, pictures, out, *blocked], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def test_a_detector_predicts_without_the_packages_of_training(detector, pictures, tmp_path):
    answer = predict_without(BLOCKED, detector, pictures, tmp_path / "out")
    paths = [pictures / "a.png", pictures / "more" / "b.png"]
    expected = [one.xy for one in LandmarkDetector.load(detector, device="cpu").predict(paths)]
    np.testing.assert_allclose(answer["xy"], expected, atol=1e-4)
    assert not set(answer["used"]) & set(BLOCKED)
    commands = answer["commands"]
    for name in ("predict", "verify", "help", "configs"):
        assert commands[name][0] == 0, commands[name]
    assert "2 images; 1 rejected" in commands["predict"][1]
    images = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "more/b.png"]
    code, said = commands["ingest"]
    assert code == 2
    assert said.splitlines()[-1].startswith(
        "kplm: the package ray is not installed: one of the extras cpu, gpu or gpu-cu12"
    )


@needs_all
def test_the_import_of_the_detector_brings_nothing_that_prediction_does_not_need():
    """What is installed is not imported either: training, tables of pandas, exporters."""
    code = "import sys; from ray_kplm import LandmarkDetector; print(*{name.split('.')[0] for name in sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not set(ended.stdout.split()) & {*EXTRAS, "onnxruntime"}


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


@needs_all
def test_the_requirements_of_the_logged_model_bring_all_that_it_imports(detector, pictures, tmp_path):
    """What the package itself requires does not count: it is installed without in a small image."""
    listed = {Requirement(line).name for line in model_requirements()}
    brought = below(listed - {"ray-kplm"})
    homes = importlib.metadata.packages_distributions()
    others = [
        m for m, names in homes.items() if not {canonicalize_name(name) for name in names} & (brought | {"ray-kplm"})
    ]
    assert {"faiss", "ray", "albumentations"} <= set(others)
    answer = predict_without(others, detector, pictures, tmp_path / "out")
    assert np.shape(answer["xy"]) == (2, 3, 2)
    assert "ray_kplm" in answer["used"]


def test_the_logged_model_requires_what_the_package_requires_and_mlflow():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = sorted(Requirement(line).name for line in model_requirements())
    assert listed == sorted(["mlflow", "ray-kplm", *(Requirement(line).name for line in project["dependencies"])])


def test_training_without_faiss_is_an_error_of_one_line():
    code = "import sys; sys.modules['faiss'] = None\nfrom ray_kplm.correspondence.faiss_import import faiss\nfaiss.knn"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "ConfigError: the package faiss is not installed" in ended.stderr.splitlines()[-1]
