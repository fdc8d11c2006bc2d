"""What a command refuses in a moment, before PyTorch and Ray are loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_kplm.cli import checks
from ray_kplm.cli.main import main
from ray_kplm.config import load_config
from ray_kplm.errors import ConfigError, DataError, KplmError, StorageError
from ray_kplm.job_copy import refuse_lost
from ray_kplm.run import Run

ROOT = Path(__file__).parents[1]
QUICK = """
    import sys
    from ray_kplm.cli.main import main
    code = main(sys.argv[1:])
    print(code, *sorted({'torch', 'ray', 'mlflow', 'faiss', 'matplotlib'} & sys.modules.keys()))
"""
REFUSED = [
    (["ingest", "nothing", "out"], DataError, "nothing: no such file or folder"),
    (["ingest", ".", "out", "--boxes", "nothing.csv"], DataError, "nothing.csv: no such file or folder"),
    (["ingest", ".", "file/out"], StorageError, "is a file, and not a folder to write to"),
    (["ingest", ".", "out", "--size", "1"], ConfigError, "size = 1: must be at least min_side"),
    (["train", "nothing"], ConfigError, "no such configuration file"),
    (["train", "demo", "dataset=", "run=new"], ConfigError, "name the dataset"),
    (["train", "demo", "dataset=nothing", "run=new"], DataError, "no finished dataset"),
    (["demo", "--folder", "file"], StorageError, "is a file"),
    (["synth", "3", "file/x"], StorageError, "is a file"),
    (["fork", "nothing", "new"], KplmError, "no run directory"),
    (["fork", "unfinished", "file"], StorageError, "is a file"),
    (["evaluate", "nothing"], KplmError, "no run directory"),
    (["evaluate", "unfinished"], KplmError, "stage2 is not finished"),
    (["evaluate"], ConfigError, "name one run directory"),
    (["quality", "nothing"], KplmError, "no run directory"),
    (["quality", "unfinished", "--against", "nothing"], KplmError, "no run directory"),
    (["predict", "nothing", ".", "out"], KplmError, "no run directory"),
    (["predict", "unfinished", ".", "out"], KplmError, "stage2 is not finished"),
    (["show", "unfinished"], KplmError, "stage2 is not finished"),
    (["report", "nothing"], KplmError, "no run directory"),
    (["template", "nothing"], KplmError, "no run directory"),
    (["steps", "nothing"], KplmError, "no run directory"),
    (["bench", "quality", "nothing"], KplmError, "no run directory"),
    (["choose", "nothing"], DataError, "no finished dataset"),
    (["sweep", "demo", "dataset=nothing", "run=new", "--over", "seed=1,2"], DataError, "no finished dataset"),
    (["ablate", "demo", "dataset=nothing", "run=new", "--over", "mirror"], DataError, "no finished dataset"),
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory, with a file and an unfinished run in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    Run.start(load_config(None, ["run=unfinished"])).save()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "kind", "words"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_it_is_refused_with_one_line(here, arguments, kind, words, capsys):
    before = sorted(here.rglob("*"))
    code = main(arguments)
    said = capsys.readouterr().err
    assert code in ({kind.exit_code} if kind is not KplmError else {3, 4})
    assert words in said
    assert len(said.splitlines()) == 1
    assert sorted(here.rglob("*")) == before


def test_no_heavy_library_is_loaded_for_that(here):
    code = "".join(line.removeprefix("    ") + "\n" for line in QUICK.splitlines())
    for arguments, _, _ in REFUSED[::4]:
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert ended.stdout.split()[1:] == [], (arguments, ended.stdout, ended.stderr)
        assert ended.stdout.split()[0] in "234"


def test_a_missing_package_is_named(here, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "faiss" else object())
    monkeypatch.setattr("ray_kplm.datasets.dataset.Dataset.open", lambda uri: None)
    with pytest.raises(
        ConfigError, match=r"the package faiss is not installed: one of the extras cpu, gpu or gpu-cu12"
    ):
        checks.training(load_config(None, ["dataset=d", "run=new"]))


def test_a_folder_that_may_not_be_written_is_refused(here):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (here / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="not writable"):
        checks.target("locked/new", "OUT")


def test_a_target_may_be_new_or_there_or_a_uri(here):
    (here / "there").mkdir()
    (here / "link").symlink_to("there")
    for place in ("new", "new/deep/er", "there", "link/x", here / "there", f"file://{here}/new"):
        checks.target(str(place), "OUT")
    checks.target_file("picture.png", "unfinished")
    checks.target_file(None, "unfinished")
    with pytest.raises(StorageError, match="is a folder"):
        checks.target_file("there", "unfinished")


COPY = "session_1/runtime_resources/working_dir_files/_ray_pkg_0123abcd"
TARGETS = {
    "ingest DATASET": ["ingest", "photos", "dataset"],
    "train run": ["train", "demo", "dataset={data}", "run=runs/x"],
    "predict OUT": ["predict", "{run}", "photos", "landmarks"],
    "demo --folder": ["demo", "--folder", "runs/demo"],
    "synth DIR": ["synth", "3", "images"],
    "fork NEW": ["fork", "{run}", "runs/new"],
    "sweep run": ["sweep", "demo", "dataset={data}", "run=runs/x", "--over", "seed=1,2"],
    "ablate run": ["ablate", "demo", "dataset={data}", "run=runs/x", "--over", "mirror"],
    "choose --folder": ["choose", "{data}"],
    "report RUN": ["report", "finished"],
    "show RUN": ["show", "finished"],
    "show --out": ["show", "{run}", "--out", "a.png"],
    "template --out": ["template", "{run}", "--out", "a.png"],
}
"""Commands in a job, whose working directory is Ray's copy of the folder that was submitted."""


@pytest.mark.parametrize("what", TARGETS)
def test_a_target_in_the_copy_of_a_job_is_refused_before_anything_is_done(tmp_path, monkeypatch, what, capsys):
    (copy := tmp_path / COPY / "photos").mkdir(parents=True)
    (copy / "a.jpg").write_bytes(b"")
    monkeypatch.chdir(copy.parent)
    for check in ("finished_run", "detector"):
        monkeypatch.setattr(checks, check, lambda uri: Run(None, load_config(None, ["dataset=d"])))
    monkeypatch.setattr(Run, "open", lambda uri: Run(None, load_config(None, ["dataset=d"])))
    monkeypatch.setattr("ray_kplm.datasets.dataset.Dataset.open", lambda uri: None)
    given = [word.format(data=tmp_path / "data", run=tmp_path / "run") for word in TARGETS[what]]
    before = sorted(tmp_path.rglob("*"))
    assert main(given) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "lies in Ray's copy of the folder that was submitted" in said
    assert "give an absolute path" in said
    assert len(said.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_sources_may_be_there_and_targets_elsewhere(tmp_path, monkeypatch):
    (tmp_path / COPY / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / COPY)
    checks.source("photos")
    for place in (tmp_path / "data", "s3://bucket/data", "gs://bucket/x", "../../data"):
        refuse_lost(place, "OUT")
    (tmp_path / "link").symlink_to(tmp_path / COPY)
    for place in ("data", tmp_path / COPY / "data", tmp_path / "link" / "data", f"file://{tmp_path / COPY}/data", "."):
        with pytest.raises(ConfigError):
            refuse_lost(place, "OUT")
