"""`kplm serve` as a process: Ray Serve, its batches, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import psutil
import pytest

from ray_kplm.bench.http_load import ask_all, image_request, images_request
from ray_kplm.landmark_detector import LandmarkDetector

from .conftest import K, picture

LIMIT_S = 300
"""For the start of Ray and Ray Serve on a busy machine."""


@pytest.fixture(scope="module")
def server(exported):
    """A running `kplm serve`: the process and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = ["--max-request-bytes", "200000", "--max-pixels", "100000", "--max-queue", "200"]
    command = [sys.executable, "-m", "ray_kplm.cli", "serve", str(exported), "--port", str(port), *limits]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    lines: list[str] = []
    threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True).start()
    until = time.monotonic() + LIMIT_S
    while not any("is served at" in line for line in lines):
        assert process.poll() is None, lines
        assert time.monotonic() < until, lines
        time.sleep(0.2)
    yield process, port, lines
    process.kill()


def get(port: int, path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
        return json.load(reply)


@pytest.mark.slow
def test_many_clients_are_answered_as_python_does_and_broken_images_harm_nobody(server, exported):
    process, port, _ = server
    assert get(port, "/healthz")["status"] == "ok"
    assert get(port, "/")["landmarks"] == K
    pictures = [picture(i) for i in range(12)]
    expected = LandmarkDetector.load(exported, device="cpu").predict(pictures)
    requests = [image_request(content) for content in pictures]
    requests[3], requests[7] = image_request(pictures[3][:500]), image_request(bytes(250_000))
    replies, _ = ask_all(port, requests, 480, 24)
    for reply in replies:
        number = reply.number % 12
        if number in (3, 7):
            assert reply.status == {3: 422, 7: 413}[number]
        else:
            assert reply.status == 200
            np.testing.assert_allclose(reply.content["images"][0]["xy"], expected[number].xy, atol=0.01)
    ((several,), _) = ask_all(port, [images_request([pictures[0], b"x", pictures[1]])], 1, 1)
    first, broken, second = several.content["images"]
    np.testing.assert_allclose([first["xy"], second["xy"]], [expected[0].xy, expected[1].xy], atol=0.01)
    assert broken["error"]["code"] == "unusable_image"
    assert process.poll() is None


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(server):
    process, port, _ = server
    tree = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    listening = [
        one.laddr
        for one in psutil.net_connections("inet")
        if one.status == psutil.CONN_LISTEN and one.pid in tree and one.laddr.port == port
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}


@pytest.mark.slow
def test_a_second_server_at_its_port_is_refused_in_one_line(server, exported):
    _, port, _ = server
    command = [sys.executable, "-m", "ray_kplm.cli", "serve", str(exported), "--port", str(port)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 2
    assert [line for line in ended.stderr.splitlines() if "cannot listen there" in line] == ended.stderr.splitlines()


@pytest.mark.slow
def test_ctrl_c_ends_it_with_all_its_processes(server):
    process, port, lines = server
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    with pytest.raises(urllib.error.URLError):
        get(port, "/healthz")
    assert lines[-1] == "kplm: interrupted; the same command continues\n"
    assert not any("Traceback" in line for line in lines)
