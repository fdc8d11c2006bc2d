"""What `kplm serve` refuses before it loads PyTorch and starts Ray."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from ray_kplm.cli import serve
from ray_kplm.cli.main import build_parser, main
from ray_kplm.errors import ConfigError
from ray_kplm.serving.options import ServeOptions


def test_without_options_a_server_has_its_defaults_and_this_machine_alone():
    options = build_parser().parse_args(["serve", "runs/mine"])
    assert serve.chosen(options) == ServeOptions()
    assert serve.is_loopback(options.host)
    given = ["--timeout", "2.5", "--max-batch", "4", "--batch-wait-ms", "0", "--max-queue", "9", "--replicas", "2"]
    chosen = serve.chosen(build_parser().parse_args(["serve", "runs/mine", *given]))
    assert chosen == ServeOptions(timeout_s=2.5, max_batch=4, batch_wait_ms=0, max_queue=9, replicas=2)


@pytest.mark.parametrize("wrong", ["--port=0", "--max-pixels=0", "--timeout=0", "--replicas=0", "--batch-wait-ms=nan"])
def test_numbers_out_of_range_are_a_usage_error(wrong):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["serve", "runs/mine", wrong])
    assert ended.value.code == 2


def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"--port {port}: cannot listen there .address already in use.; try --port"
        ):
            serve.check_port("127.0.0.1", port)
    serve.check_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1 --port 8000: cannot listen there"):
        serve.check_port("192.0.2.1", 8000)
    assert not serve.is_loopback("0.0.0.0")


def test_what_is_no_detector_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "nothing")]) == 4
    assert main(["serve", str(tmp_path / "nothing.onnx")]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "nothing.onnx: no such file" in lines[1]


def test_a_missing_package_is_one_line():
    code = "import sys; sys.modules['grpc_reflection'] = None\nfrom ray_kplm.cli.main import main\nmain(['serve', 'runs/mine'])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].startswith(
        "kplm: the package grpc_reflection is not installed: the extra serve"
    )


def test_the_options_of_a_file_are_checked():
    assert ServeOptions.of({"max_batch": 8, "timeout_s": 3}).max_batch == 8
    for values, message in (
        ({"max_batches": 8}, "max_batches: no option of a server; the options are max_batch, "),
        ({"max_batch": "8"}, "max_batch = '8': must be of type int"),
        ({"max_batch": 0}, "max_batch = 0: must be 1 to 4096"),
    ):
        with pytest.raises(ConfigError, match=message):
            ServeOptions.of(values)
