"""What a user's tools read of the package: version, types, citation, public names."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
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


def test_all_public_names_can_be_imported():
    for name in ray_kplm.__all__:
        assert getattr(ray_kplm, name) is not None


def test_a_renamed_public_name_names_the_new_one():
    with pytest.raises(AttributeError, match=r"^ray_kplm\.load is now ray_kplm\.load_config$"):
        ray_kplm.load  # noqa: B018
    with pytest.raises(ImportError):
        from ray_kplm import load  # noqa: F401


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        ray_kplm.train  # noqa: B018
