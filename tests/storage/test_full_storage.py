"""Full storage, really full: what is written, in pieces or at once, is one line, and nothing half-written is published."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ray_kplm.errors import StorageError

ROOT = Path(__file__).parents[2]
WRITES = {
    "bytes": 'folder.write_bytes("a", content)',
    "table": 'folder.write_table("a", pa.table({"a": [os.urandom(2**22)]}))',
    "pieces": 'with folder.writing("a") as out:\n    for _ in range(64): out.write(os.urandom(2**16))',
    "copy": 'copy_file(Folder.at(source), folder, "big")',
    "csv": 'write_text(folder, "a", ("x" * 2**16 for _ in range(64)))',
    "upload": (
        "os.environ['TMPDIR'] = tempfile.tempdir = str(folder); storage._MEMORY_BYTES = 2**10\n"
        "with Folder(pafs.PyFileSystem(None), 'x').writing('a') as out:\n    for _ in range(64): out.write(content[:2**16])"
    ),
}
"""What is written to `folder`, more than fits. `upload` is buffered there, on its way to an object store."""
SCRIPT = """
    import os, sys, tempfile
    import pyarrow as pa
    from pyarrow import fs as pafs
    from ray_kplm.storage import folder as storage
    from ray_kplm.errors import StorageError
    from ray_kplm.inference.export.written_files import write_text
    from ray_kplm.storage import Folder, copy_file
    folder, source, limit = Folder.at(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    content = os.urandom(2**22)
    folder.write_bytes("kept", b"small")
    if limit:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pafs.PyFileSystem = lambda handler: pafs.SubTreeFileSystem("/nowhere", pafs.LocalFileSystem())
    for name, write in WRITES.items():
        try:
            exec(write)
        except StorageError as error:
            print(name, error, flush=True)
    print(sorted(os.listdir(sys.argv[1])))
"""


def lines_of(folder: Path, source: Path, limit: int, *before: str) -> list[str]:
    code = textwrap.dedent(SCRIPT).replace("WRITES", repr(WRITES))
    ended = subprocess.run(
        [*before, sys.executable, "-c", code, folder, source, str(limit)], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()


def assert_one_line_each(lines: list[str], words: str, folder: Path) -> None:
    *errors, left = lines
    assert [line.split()[0] for line in errors] == list(WRITES)
    for line in errors:
        assert words in line, line
        assert str(folder) in line
    assert left == "['kept']"


@pytest.fixture
def big(tmp_path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(2**22))
    return source


def test_a_file_that_grows_too_large_is_one_line(tmp_path, big):
    (tmp_path / "out").mkdir()
    lines = lines_of(tmp_path / "out", big, 2**20)
    assert_one_line_each(lines, "a file grows beyond what the file system or `ulimit -f` allows", tmp_path / "out")


def test_a_full_file_system_is_one_line(tmp_path, big):
    (out := tmp_path / "out").mkdir()
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=1m tmpfs {out} && exec "$@"', "sh"]
    try:
        tried = subprocess.run([*mount, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare: a small file system cannot be mounted")
    if tried.returncode:
        pytest.skip(f"a small file system cannot be mounted: {tried.stderr.strip()}")
    assert_one_line_each(
        lines_of(out, big, 0, *mount), "no space is left; free some, and the same command continues", out
    )


def test_a_command_that_fills_a_disk_ends_with_one_line(tmp_path):
    """`kplm synth` writes by itself, not through a folder of a run."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, 2**12))  # noqa: E731
    command = [sys.executable, "-m", "ray_kplm.cli", "synth", "20", tmp_path / "images", "--size", "64"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=limit)
    assert ended.returncode == StorageError.exit_code
    assert "allows; the same command continues" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
