"""A lock between processes, and a package that is imported where `fcntl` is missing."""

import subprocess
import sys

from ray_kplm.tracking.file_lock import file_lock

COUNT = """
import sys, time
from pathlib import Path
from ray_kplm.tracking.file_lock import file_lock

sys.stdin.readline()
counter = Path(sys.argv[1]) / "counter"
for _ in range(20):
    with file_lock(Path(sys.argv[1]) / ".lock"):
        value = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(value + 1))
"""

IMPORT = """
import builtins, sys

original = builtins.__import__
def refuse(name, *rest, **named):
    importer = (rest[0] or {}).get("__name__", "") if rest else ""
    if name in ("fcntl", "pwd", "grp", "termios", "resource") and importer.startswith("ray_kplm"):
        raise ModuleNotFoundError(f"No module named {name!r}")
    return original(name, *rest, **named)
builtins.__import__ = refuse

import importlib, pkgutil
import ray_kplm.tracking
for module in pkgutil.iter_modules(ray_kplm.tracking.__path__, "ray_kplm.tracking."):
    importlib.import_module(module.name)
print("imported")
"""


def test_the_lock_admits_one_process_at_a_time(tmp_path):
    (tmp_path / "counter").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.write(b"now\n")
        process.stdin.close()
    assert [process.wait(timeout=240) for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "60"


def test_without_locks_the_work_goes_on(tmp_path):
    """The folder does not exist, as little as locks on some file systems."""
    with file_lock(tmp_path / "missing" / ".lock"):
        worked = True
    assert worked


def test_the_package_is_imported_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "imported", done.stderr[-2000:]
