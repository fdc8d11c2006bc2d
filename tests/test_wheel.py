"""The wheel: what is in it, and that it works where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ray_kplm"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: a build folder left in the checkout would be built from again."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(PACKAGE, source / "ray_kplm", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist", "."]
    subprocess.run([sys.executable, "-m", *command], cwd=source, check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_it_has_all_files_of_the_package(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"ray_kplm/configs/demo.yaml", "ray_kplm/report/templates/page.html"} <= expected
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs the `kplm` of a fresh environment, in a folder that is no checkout. The libraries are those of this one."""
    root = tmp_path_factory.mktemp("fresh")
    venv.create(root / "venv")
    python = root / "venv" / "bin" / "python"
    fresh = sysconfig.get_path("purelib", "venv", {"base": str(root / "venv"), "platbase": str(root / "venv")})
    path = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, env=environment)
    (Path(fresh) / "libraries.pth").write_text("\n".join(path))
    work = root / "work"
    work.mkdir()

    def kplm(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(python.parent / "kplm"), *arguments]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)

    located = [str(python), "-c", "import ray_kplm; print(ray_kplm.__file__)"]
    where = subprocess.run(located, cwd=work, env=environment, capture_output=True, text=True, check=True)
    assert Path(where.stdout.strip()).is_relative_to(root)
    return kplm


@pytest.mark.slow
def test_an_installed_wheel_shows_its_configurations_and_does_the_demo(installed, small_config):
    assert installed("--version").stdout.startswith("kplm ")
    listed = installed("configs").stdout
    assert [line.split()[0] for line in listed.splitlines()] == sorted(
        p.stem for p in (PACKAGE / "configs").glob("*.yaml")
    )
    assert installed("configs", "demo").stdout == (PACKAGE / "configs" / "demo.yaml").read_text()
    wrong = installed("train", "face_cpu")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean faces_cpu" in wrong.stderr
    done = installed("demo", "--images", "60", "--json", "--quiet", *small_config, "stage1.rounds=0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["landmarks"] == 5
    lines = [line for line in done.stderr.splitlines() if not line.startswith("kplm: ")]
    assert not lines, lines
