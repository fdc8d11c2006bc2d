"""What a stranger's tools read of the package: version, types, citation."""

import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import ray_kplm

ROOT = Path(__file__).parent.parent


def test_the_version_is_written_once_and_cited():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ray_kplm.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == ray_kplm.__version__
    assert f"{ray_kplm.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_type_checkers_find_the_package_typed():
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in package_data["ray_kplm"]
    assert (ROOT / "ray_kplm" / "py.typed").is_file()


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = "import sys, ray_kplm; print(ray_kplm.__version__, *{'torch', 'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [ray_kplm.__version__]
