"""The extra that brings a missing package is an extra of the distribution, and brings it."""

import re
import tomllib
from pathlib import Path

import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.extras import EXTRAS, check_installed, missing

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BROUGHT_BY_ANOTHER = {
    "fastapi": "ray",
    "grpc_reflection": "ray",
    "starlette": "ray",
    "multipart": "python-multipart",
    "ndx_pose": "sleap-io",
    "uvicorn": "ray",
}
"""Module -> the requirement whose dependency it is, or under whose name it is known."""
DISTRIBUTIONS = {"sklearn": "scikit-learn", "faiss": "faiss-cpu"}


def requirements(extra: str) -> set[str]:
    """The names that an extra lists, those of extras of this distribution that it names included."""
    names: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", line).groups()
        names |= set().union(*map(requirements, extras.split(","))) if name == "ray-kplm" else {name}
    return {name.replace("_", "-") for name in names}


@pytest.mark.parametrize("module", EXTRAS)
def test_the_named_extra_brings_the_package(module):
    extra = re.match(r"[\w-]+", EXTRAS[module]).group()
    wanted = BROUGHT_BY_ANOTHER.get(module) or DISTRIBUTIONS.get(module, module)
    assert wanted.replace("_", "-") in requirements(extra), (module, extra)


def test_all_extras_but_those_that_exclude_each_other_are_in_dev():
    others = {"dev", "cpu", "gpu", "gpu-cu12", "aliked"}
    listed = re.search(r"ray-kplm\[([\w,-]+)\]", str(PROJECT["optional-dependencies"]["dev"])).group(1).split(",")
    assert set(listed) == set(PROJECT["optional-dependencies"]) - others


def test_the_error_is_one_line_with_the_extra():
    assert str(missing("ray.data")) == (
        "the package ray.data is not installed: one of the extras cpu, gpu or gpu-cu12 brings it, "
        'as pip install "ray-kplm[cpu]"'
    )
    assert str(missing("av")).endswith('the extra video brings it, as pip install "ray-kplm[video]"')
    assert "with its dependencies" in str(missing("torch"))


def test_what_is_installed_passes(monkeypatch):
    check_installed("numpy", "json")
    with pytest.raises(ConfigError, match="no_such_module is not installed"):
        check_installed("numpy", "no_such_module")


def test_constraints_pin_what_is_declared():
    pinned = {
        line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    declared = set(PROJECT["optional-dependencies"]) - {"gpu", "gpu-cu12"}
    names = set().union(*map(requirements, declared)) | {
        re.match(r"[\w-]+", line).group() for line in PROJECT["dependencies"]
    }
    assert {name.lower() for name in names} <= pinned
