"""Credentials in URIs: found in every form, refused before anything is written, and in no text that goes out."""

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ray_kplm.cli.console import Console, Result, emit
from ray_kplm.cli.main import main
from ray_kplm.config import load_config
from ray_kplm.detectors import stored
from ray_kplm.errors import ConfigError, DataError, RunError
from ray_kplm.methods.channels import CHANNELS, Channels
from ray_kplm.redaction import HIDDEN, RedactingFormatter, has_credentials, redact, without_credentials
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.tracking.messages import first_line, print_line
from ray_kplm.tracking.record import Record, choose_location

SECRET = "hUnter2Key"
WITH = {
    f"s3://AKIA7:{SECRET}@bucket/faces": "s3://bucket/faces",
    f"s3://AKIA7:ab/{SECRET}+x@bucket/faces": "s3://bucket/faces",
    f"s3://AKIA7:12/{SECRET}@bucket/faces": "s3://bucket/faces",
    f"s3://AKIA7%3A{SECRET}@bucket/faces": "s3://bucket/faces",
    f"s3://bucket/faces?access_key=AKIA7&secret_key={SECRET}&scheme=http": "s3://bucket/faces?scheme=http",
    f"s3://bucket/faces?session_token={SECRET}": "s3://bucket/faces",
    f"s3://bucket/x?endpoint_override=http://me:{SECRET}@host:9000": "s3://bucket/x?endpoint_override=http://host:9000",
    f"s3://bucket/x?endpoint_override=http%3A%2F%2Fme%3A{SECRET}%40host%3A9000": "s3://bucket/x?endpoint_override=http%3A%2F%2Fhost%3A9000",
    f"gs://me:{SECRET}@bucket/x": "gs://bucket/x",
    f"abfss://:{SECRET}@account.dfs.core.windows.net/c/x": "abfss://account.dfs.core.windows.net/c/x",
    f"https://account.blob.core.windows.net/c?sv=2024&sig={SECRET}%3D": "https://account.blob.core.windows.net/c?sv=2024",
    f"https://bucket.s3.amazonaws.com/x?X-Amz-Signature={SECRET}&X-Amz-Expires=60": "https://bucket.s3.amazonaws.com/x?X-Amz-Expires=60",
    f"http://me:{SECRET}@host:5000": "http://host:5000",
    f"http://me:12345{SECRET}@host": "http://host",
    f"postgresql://me:p@{SECRET}@host/db": "postgresql://host/db",
    f"mysql+pymysql://me:{SECRET}@host:3306/db": "mysql+pymysql://host:3306/db",
    f"hdfs://me:{SECRET}@host:8020/x": "hdfs://host:8020/x",
}  # fmt: skip
"""URI with credentials -> the same without."""
WITHOUT = [
    "s3://bucket/faces", "s3://bucket/a@b/c:d@e", "s3://bucket/x?endpoint_override=http://127.0.0.1:9000&scheme=http",
    "gs://anonymous@bucket/x", "hdfs://me@host:8020/x@y", "abfs://container@account.dfs.core.windows.net/x",
    "http://host:5000/x@y", "http://localhost:5000", "sqlite:////home/a@b:c/mlflow.db", "/data/my:folder@home/x", "runs/mine",
    "https://example.com/?page=2&key=value", "",
]  # fmt: skip
"""Texts that hold none."""


@pytest.mark.parametrize(("uri", "clean"), WITH.items())
def test_credentials_are_found_and_removed(uri, clean):
    assert has_credentials(uri)
    assert SECRET not in redact(uri)
    assert HIDDEN in redact(uri)
    assert without_credentials(uri) == clean
    assert not has_credentials(clean)
    assert not has_credentials(redact(uri))


@pytest.mark.parametrize("text", WITHOUT)
def test_other_texts_are_as_they_are(text):
    assert not has_credentials(text)
    assert redact(text) == without_credentials(text) == text


@pytest.mark.parametrize("uri", WITH)
def test_a_text_around_a_uri_is_kept(uri):
    text = f"cannot open '{uri}': see http://host:80/a, b@c\nand {uri}; again"
    cleaned = redact(text)
    assert SECRET not in cleaned
    assert cleaned.startswith("cannot open '")
    assert cleaned.endswith("; again")
    assert ": see http://host:80/a, b@c\nand " in cleaned


ARGUMENTS = [
    ["train", "demo", "dataset={}", "run={tmp}/run"],
    ["train", "demo", "dataset={tmp}/data", "run={}"],
    ["train", "demo", "dataset={tmp}/data", "run={tmp}/run", "keypoints.detector=file", "keypoints.file={}"],
    ["train", "{}"],
    ["ingest", "{}", "{tmp}/data"],
    ["ingest", "{tmp}", "{}"],
    ["ingest", "{tmp}", "{tmp}/data", "--boxes", "{}"],
    ["ingest", "{tmp}", "{tmp}/data", "--landmarks={}"],
    ["predict", "{}", "{tmp}", "{tmp}/out"],
    ["predict", "{tmp}/run", "{}", "{tmp}/out"],
    ["predict", "{tmp}/run", "{tmp}", "{}", "--json"],
    ["evaluate", "{tmp}/run", "--data", "{}"],
    ["evaluate", "{}", "--json"],
    ["quality", "{tmp}/run", "--against", "{}"],
    ["show", "{tmp}/run", "--out", "{}"],
    ["report", "{}"],
    ["fork", "{tmp}/run", "{}"],
    ["sweep", "demo", "dataset={tmp}", "run={tmp}/s", "--over", "seed=1,2", "features={},hog"],
    ["ablate", "demo", "dataset={}", "run={tmp}/a", "--over", "kind"],
    ["choose", "{}"],
]


@pytest.mark.parametrize("uri", list(WITH)[::5])
@pytest.mark.parametrize("words", ARGUMENTS, ids=lambda words: " ".join(words))
def test_every_argument_is_refused_before_anything_is_written(words, uri, tmp_path, capsys):
    filled = [word.replace("{tmp}", str(tmp_path)).replace("{}", uri) for word in words]
    try:
        code = main(filled)
    except SystemExit as error:  # of the parser
        code = error.code
    out, err = capsys.readouterr()
    assert code == 2
    assert SECRET not in out + err
    assert len(err.splitlines()) == 1 or err.startswith("usage:")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["dataset", "run", "keypoints.file", "keypoints.weights", "features"])
@pytest.mark.parametrize("uri", list(WITH)[::4])
def test_a_configuration_file_is_refused_with_the_way_out(key, uri, tmp_path):
    tree: dict = {}
    node = tree
    *sections, last = key.split(".")
    for section in sections:
        node = node.setdefault(section, {})
    node[last] = uri
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=rf"{key} = .*{HIDDEN.replace('*', '[*]')}.*: holds credentials") as caught:
        load_config(tmp_path / "mine.yaml")
    assert SECRET not in str(caught.value) + repr(caught.value) + repr(caught.value.args)
    assert "environment" in str(caught.value)


def test_a_folder_is_not_opened_by_a_uri_with_credentials():
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as caught:
        Folder.at(f"s3://AKIA7:{SECRET}@bucket/faces")
    assert SECRET not in str(caught.value)


def test_texts_that_go_out_are_without_credentials(capsys):
    uri = f"s3://AKIA7:{SECRET}@bucket/faces"
    emit(Result("", {"rows": [{"dataset": uri}]}).as_json())
    assert json.loads(capsys.readouterr().out) == {"rows": [{"dataset": f"s3://{HIDDEN}@bucket/faces"}]}
    emit(f"table | {uri} |")
    console = Console()
    console.inform(uri)
    console.show(0.5, uri)
    print_line(f"MLflow at http://me:{SECRET}@host does not answer")
    for kind in (ConfigError, DataError, RunError):
        print(kind(f"{uri}: is wrong"), repr(kind(uri)))
    print(first_line(RuntimeError(f"API request to http://me:{SECRET}@host/api failed\nmore")))
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(RedactingFormatter("%(message)s"))
    try:
        raise OSError(f"cannot open {uri}")
    except OSError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "opening %s", (uri,), sys.exc_info())
    handler.emit(record)
    texts = "".join(capsys.readouterr()) + stream.getvalue()
    assert SECRET not in texts
    assert texts.count(HIDDEN) >= 12


FAIL = """
import sys
from ray_kplm.cli import main as module
uri = sys.argv[1]
def call(options):
    try:
        raise OSError(f"When reading {uri}: ACCESS_DENIED")
    except OSError as error:
        raise RuntimeError(f"library failed at {uri}") from error
module.build_parser = lambda: type("P", (), {"parse_args": lambda self, words: __import__("argparse").Namespace(call=call)})()
module.main([])
"""


def test_an_unexpected_error_of_a_library_is_printed_without_credentials():
    uri = f"http://me:{SECRET}@host/x?token={SECRET}"
    done = subprocess.run([sys.executable, "-c", FAIL, uri], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "RuntimeError: library failed at http://***@host/x?token=***" in done.stderr
    assert "OSError: When reading" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.fixture
def old_run(tmp_path) -> Path:
    """A run directory with credentials in its configuration and in its record of MLflow, as they were written once."""
    folder = tmp_path / "old"
    run = Run.start(load_config(None, [f"run={folder}", "method.landmarks=5"])).save()
    tree = yaml.safe_load(run.folder.read_bytes("config.yaml")) | {"dataset": f"s3://AKIA7:{SECRET}@bucket/faces"}
    run.folder.write_bytes("config.yaml", yaml.safe_dump(tree).encode())
    record = {
        "run_id": "1" * 32,
        "tracking_uri": f"http://me:{SECRET}@host:5000",
        "beside": False,
        "status": "FINISHED",
    }
    run.folder.write_json("mlflow.json", record)
    return folder


def test_an_old_run_with_credentials_opens_without_them(old_run, capsys):
    run = Run.open(str(old_run))
    assert run.config.dataset == "s3://bucket/faces"
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "config.yaml" in line
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert SECRET not in line
    assert SECRET not in yaml.safe_dump(run.config.to_dict())  # the report shows this
    assert SECRET not in json.dumps(run.config.flat())  # and MLflow gets this
    run.save()
    assert SECRET not in (old_run / "config.yaml").read_text()


def test_an_old_record_of_a_server_loses_its_password(old_run, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = Record(Folder.at(old_run))
    assert record["tracking_uri"] == choose_location(Folder.at(old_run.parent), record).uri == "http://host:5000"
    record.update(status="FINISHED")  # nothing else changes
    assert SECRET not in (old_run / "mlflow.json").read_text()


def test_an_exported_detector_has_no_credentials(old_run, tmp_path, monkeypatch):
    stage2 = Folder.at(old_run) / "stage2"
    stage2.write_bytes("network.pt", b"{}")
    stage2.write_json(CHANNELS, Channels.first(np.ones(3, bool)).to_dict())
    stage2.write_json("manifest.json", {"fingerprint": "x", "reads": {}, "inputs": {}})
    monkeypatch.setattr(stored, "strip_optimiser", lambda content: content)  # there are no weights
    stored.export(Run.open(str(old_run)), Folder.at(tmp_path / "exported"))
    exported = (tmp_path / "exported" / "config.yaml").read_text()
    assert "bucket/faces" in exported
    assert SECRET not in exported


@pytest.mark.parametrize(
    ("uri", "way"),
    [
        (f"http://me:{SECRET}@127.0.0.1:9", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (f"https://host?token={SECRET}", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (f"postgresql+psycopg2://me:{SECRET}@host/db", "pgpass"),
    ],
)
def test_a_tracking_uri_with_a_password_is_refused_with_the_way_out(uri, way, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    words = [f"dataset={tmp_path}/data", f"run={tmp_path}/run"]
    commands = (
        ["train", "demo", *words],
        ["ablate", "demo", *words, "--over", "kind"],
        ["sweep", "demo", *words, "--over", "seed=1,2"],
    )
    for command in commands:
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("kplm: MLFLOW_TRACKING_URI = ")
        assert way in line
        assert SECRET not in line
    assert not list(tmp_path.iterdir())


def test_configurations_hold_what_they_are_given():
    """URIs without credentials, among them those with a port and a user, are taken as they are."""
    for uri in WITHOUT:
        assert load_config(None, [f"dataset={uri}"]).dataset == uri
