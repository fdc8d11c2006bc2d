"""What tests of several rooms share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server on loopback, in this process."""
    server = pytest.importorskip("moto.server", reason="no moto: pip install -e '.[dev]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    running.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch) -> str:
    """`s3://<a new bucket>`, and the environment that reaches it."""
    environment = {
        "AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": ",".join(filter(None, ("127.0.0.1", os.environ.get("NO_PROXY")))),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from pyarrow import fs

    bucket = f"kplm-{uuid.uuid4().hex[:12]}"
    fs.S3FileSystem(endpoint_override=s3_endpoint, allow_bucket_creation=True).create_dir(bucket)
    return f"s3://{bucket}"
