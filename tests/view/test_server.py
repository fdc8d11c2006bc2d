"""The server listens on this machine alone, at a free port or at the one that is named, and ends."""

import socket
import urllib.error
import urllib.request

import psutil
import pytest

from ray_kplm.errors import ConfigError
from ray_kplm.view.app import make_app
from ray_kplm.view.server import serve

from .conftest import open_workspace


@pytest.fixture(scope="module")
def app(finished, tmp_path_factory):
    return make_app(open_workspace(finished, labels=str(tmp_path_factory.mktemp("labels") / "labels.json")))


def test_it_answers_at_the_loopback_address_alone_until_it_ends(app):
    with serve(app, None) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        with urllib.request.urlopen(f"{address}api/state", timeout=60) as reply:
            assert reply.status == 200
            assert "uvicorn" not in str(reply.headers).lower()
        listening = [one.laddr for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]
        assert {one.ip for one in listening if one.port == port} == {"127.0.0.1"}
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}api/state", timeout=60)


def test_each_server_has_a_token_of_its_own(app, finished):
    pages = []
    for one in (app, make_app(open_workspace(finished))):
        with serve(one, None) as address, urllib.request.urlopen(address, timeout=60) as reply:
            pages.append(reply.read())
    assert pages[0] != pages[1]


def test_a_port_that_is_taken_is_an_error_of_one_line(app):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: cannot listen there"), serve(app, port):
            pass
