"""What a crash leaves: the old or the new, and never a torn file. What a loss of power leaves: what was flushed before."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CRASHING = Path(__file__).with_name("crashing.py")


def crashing(work: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CRASHING), work, str(folder)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def memory(tmp_path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of files are flushed."""
    if not os.path.isdir("/dev/shm"):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize(("work", "boundaries"), [("step", 30), ("configuration", 10)])
def test_a_crash_at_each_boundary_leaves_old_or_new(memory, work, boundaries):
    done = crashing(work, memory)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= boundaries


@pytest.mark.slow
def test_a_crash_at_each_boundary_of_ingest_leaves_old_or_new(memory):
    done = crashing("dataset", memory)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 40


SCRIPT = """
from pathlib import Path
import sys
sys.path.insert(0, sys.argv[2])
from crashing import make_step
make_step(Path(sys.argv[1]))
"""


def events(log: str) -> list[tuple[str, str]]:
    """(`flushed` or `named`, path) in order, by the system calls that a process made."""
    found = []
    for line in log.splitlines():
        if flushed := re.search(r"\bf(?:data)?sync\(\d+<([^>]+)>\)\s+= 0", line):
            found.append(("flushed", flushed[1]))
        elif named := re.search(r'\brename(?:at2?)?\([^"]*"([^"]+)",[^"]*"([^"]+)"[^)]*\)\s+= 0', line):
            found += [("from", named[1]), ("named", named[2])]
    return found


def test_files_are_flushed_before_they_get_their_name_and_folders_before_the_manifest(tmp_path):
    strace, log, run = shutil.which("strace"), tmp_path / "log", tmp_path.resolve() / "run"
    if strace is None:
        pytest.skip("no strace: install it to see the order of system calls")
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2"
    command = [strace, "-f", "-y", "-e", calls, "-o", str(log), sys.executable, "-c", SCRIPT]
    command += [str(tmp_path.resolve()), str(CRASHING.parent)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr[-2000:]
    seen = events(log.read_text())
    step, published = run / "rounds/000/labels", [path for what, path in seen if what == "named"]
    assert {str(step / f"part-{i:05d}.parquet") for i in range(2)} <= {*published}
    for index, (what, path) in enumerate(seen):
        if what == "named" and "/.written/" not in path:
            partial = seen[index - 1][1]
            assert ("flushed", partial) in seen[:index], f"{path} was named before its content was on the medium"
    end = seen.index(("named", str(step / "manifest.json")))
    for output, folder in (("part-00001.parquet", step), ("../clusters.npz", step.parent)):
        named = seen.index(("named", os.path.normpath(step / output)))
        assert ("flushed", str(folder)) in seen[named:end], f"{output} may be lost after the manifest is there"
    assert ("flushed", str(step)) in seen[end:]
