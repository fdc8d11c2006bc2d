"""The default database beside the run directories."""

import subprocess
import sys

OPEN = """
import sys
from ray_kplm.tracking.record import StoreLocation
from ray_kplm.tracking.store import open_client
sys.stdin.readline()
open_client(StoreLocation(f"sqlite:///{sys.argv[1]}/new/mlflow.db", None, beside=True)).search_experiments()
"""


def test_runs_that_start_together_create_the_database_once(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write(b"now\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=240)[1].decode()[-500:] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
