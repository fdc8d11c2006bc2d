"""A driver that is suspended, overtaken by a second one, and woken: it does no harm and ends by itself."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from ray_kplm.methods.trainer import NETWORK, load_weights
from ray_kplm.run import Run
from ray_kplm.tracking import audit

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600
TAKE_OVER = r"""
import sys
from ray_kplm.locking import lock as run_lock
run_lock.PATIENCE_S = 1.0
from ray_kplm.cli.main import main
sys.exit(main())
"""
DURING, AFTER = "woken_while_the_second_works", "woken_after_the_second"

MOMENTS = {
    "stage1": ("rounds/000/train", "ray/*/checkpoint_*"),
    "stage2": ("stage2", "ray/*/checkpoint_*"),
}
"""A step, and the pattern of a path in the run whose appearance during the step is the moment of the suspension."""
TRAININGS = ("rounds/000/train", "stage2")


def wait_until(condition, process, deadline_s=DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert process.poll() is None, f"ended: {process.stderr.read()[-2000:]}"
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def modified(path: Path) -> int:
    """Time of the last write, ns; 0 if there is no such file."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def claims(run: Path) -> dict[Path, dict]:
    return {path: json.loads(path.read_text()) for path in run.glob(".driver-*.json")}


def send(number: int, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def results(run: Path) -> dict[str, object]:
    """All that must be equal in two runs, by path."""
    found: dict[str, object] = {str(path): pq.read_table(run / path) for path in label_parts(run)}
    for step in TRAININGS:
        found |= {f"{step}: {name}": w for name, w in load_weights((run / step / NETWORK).read_bytes()).items()}
    return found


def label_parts(run: Path) -> list[Path]:
    return sorted(path.relative_to(run) for path in run.glob("rounds/*/labels/part-*.parquet"))


def assert_same(one: dict[str, object], two: dict[str, object]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        same = value.equals(two[name]) if hasattr(value, "equals") else np.array_equal(value, two[name])
        assert same, name


@pytest.fixture(scope="module")
def arguments(small, folder):
    """Of the command that trains to a run."""
    return lambda run: [
        "train",
        folder / "empty.yaml",
        f"dataset={folder / 'dataset'}",
        f"run={run}",
        *small,
        "stage1.rounds=0",
    ]


@pytest.fixture(scope="module")
def undisturbed(finish, folder, arguments) -> dict[str, object]:
    finish(*arguments(folder / "calm"))
    return results(folder / "calm")


@pytest.fixture
def processes():
    """Processes that the test started, and theirs: killed at its end, if it failed."""
    found: list[psutil.Process] = []
    yield found
    send(signal.SIGKILL, found)


@pytest.mark.quiet
@pytest.mark.parametrize(("moment", "woken"), [("stage1", DURING), ("stage2", AFTER)])
def test_a_driver_that_was_overtaken_ends_by_itself_and_changes_nothing(
    moment, woken, kplm, folder, arguments, undisturbed, processes
):
    run = folder / f"{moment}-{woken}"
    step, pattern = MOMENTS[moment]
    first = kplm(*arguments(run), start_new_session=True)  # if it is killed, Ray kills the processes of its group
    driver = psutil.Process(first.pid)
    processes.append(driver)
    begun = run / step / "claim.json"
    wait_until(lambda: modified(begun) and any(modified(p) >= modified(begun) for p in run.glob(pattern)), first)

    # Once only the driver is suspended, and its workers go on; once all that it started, as on a machine that is paused.
    whole = driver.children(recursive=True)
    processes += whole
    send(signal.SIGSTOP, [driver] if woken == DURING else [driver, *whole])
    ((path, values),) = claims(run).items()
    path.write_text(json.dumps({**values, "machine": "another"}))  # so that its process is not looked up

    second = subprocess.Popen(
        [sys.executable, "-c", TAKE_OVER, *map(str, arguments(run))],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    processes.append(psutil.Process(second.pid))
    if woken == DURING:
        wait_until(lambda: any(c["held"] and c["pid"] == second.pid for c in claims(run).values()), second)
        wait_until(
            lambda: json.loads(begun.read_bytes()).get("owner") != values["token"] if begun.exists() else True, second
        )
        send(signal.SIGCONT, [driver])
        _, err = first.communicate(timeout=DEADLINE_S)
        second_out, second_err = second.communicate(timeout=DEADLINE_S)
    else:
        second_out, second_err = second.communicate(timeout=DEADLINE_S)
        files = {path: modified(path) for path in run.rglob("*")}
        send(signal.SIGCONT, [*whole, driver])
        _, err = first.communicate(timeout=DEADLINE_S)
        assert {path: modified(path) for path in run.rglob("*")} == files, "it changed the run"

    assert second.returncode == 0, second_err[-2000:]
    assert "done in" in second_out
    assert first.returncode == 4, err[-2000:]
    assert err.rstrip().splitlines()[-1].endswith("this driver stops, so that two do not work on one folder")
    assert "Traceback" not in err
    _, left = psutil.wait_procs(whole, timeout=30)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    assert claims(run) == {}
    assert not (run / "ray").exists()
    owners = {json.loads(path.read_text())["owner"] for path in run.rglob("manifest.json")}
    assert len(owners) == 2, "both drivers finished steps"
    assert values["token"] in owners
    assert_same(results(run), undisturbed)
    assert audit(Run.open(str(run))) == {"runs": 1, "status": "FINISHED", "repeated": []}
