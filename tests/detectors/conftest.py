"""Untrained detectors, and a model hub on loopback: what huggingface_hub asks of the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from ray_kplm.correspondence.facing import FacingTemplate
from ray_kplm.dense_features import build_features, describe_images
from ray_kplm.methods.facing import FACING, FacingRule
from ray_kplm.methods.visibility import OWN_FEATURES, VISIBILITY, VISIBILITY_STEP, VisibilityModel
from ray_kplm.run import Run

K = 4
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123456789"


def _picture(seed: int = 0) -> np.ndarray:
    few = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.repeat(np.repeat(few, 10, 0), 10, 1)


@pytest.fixture(scope="session")
def picture():
    """Draw picture number `seed`: (60, 80, 3)."""
    return _picture


@pytest.fixture(scope="session")
def finished_run(untrained_run):
    """Write a finished run: `finished_run(folder, *overrides, faces=False, seed=3)`.

    Its network is untrained; it has probabilities, and a rule of facing or mirror partners.
    """

    def write(folder, *overrides: str, faces: bool = False, seed: int = 3) -> Run:
        run = untrained_run(folder, K, f"dataset={folder / 'nowhere'}", *overrides, seed=seed, partners=[1, 0, -1, -1])
        random = np.random.default_rng(seed)
        weights = random.normal(size=(K, len(OWN_FEATURES) + 2 * K)).astype(np.float32)
        model = VisibilityModel(weights, random.normal(size=(K, 2)).astype(np.float32))
        fitted = run.step(VISIBILITY_STEP, "visibility", {}, {})
        fitted.folder.write_json(VISIBILITY, model.to_dict())
        fitted.finish()
        if faces:
            shape = describe_images(build_features(run.config), [_picture()], mirrored=False).shape[1:]
            direction = random.normal(size=shape).astype(np.float32)
            template = FacingTemplate(np.zeros(shape, np.float32), direction, 3.0)
            rule = FacingRule(run.config, template, np.array([0.1, 0.1, 0.9, 0.9], np.float32))
            facing = run.step(FACING, "facing", {}, {})
            rule.write(facing.folder)
            facing.finish(mirror="facing")
        return run

    return write


@pytest.fixture(scope="module")
def run(tmp_path_factory, finished_run) -> Run:
    return finished_run(tmp_path_factory.mktemp("runs"))


class Hub(ThreadingHTTPServer):
    """Models in memory. `asked` has the method, the path and the token of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # model -> commit -> file -> content
        self.branches: dict[str, dict[str, str]] = {}  # model -> branch -> commit
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.refuse: dict[str, int] = {}  # piece of a path -> status
        self.silent, self.closing = threading.Event(), threading.Event()

    def commit_of(self, model: str, revision: str) -> str | None:
        if model not in self.branches:
            return None
        return self.branches[model].get(revision) or (revision if revision in self.commits[model] else None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.asked.append((self.command, path))
        if self.server.silent.is_set():
            return self.server.closing.wait(20) and None
        for piece, status in self.server.refuse.items():
            if piece in path:
                return self._send(status, {"error": f"refused with {status}"})
        for method, pattern, act in _ROUTES:
            if self.command in method and (match := re.fullmatch(pattern, path)):
                return act(self, body, *match.groups())
        return self._send(404, {"error": "no such page"})

    def _send(self, status: int, value: object = b"", **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send(401, {"error": "Invalid username or password."})
        return False

    def _create(self, body: bytes) -> None:
        if not self._may_write():
            return
        asked = json.loads(body)
        if asked["organization"] == "others":
            return self._send(403, {"error": "You don't have the rights to create a model under the namespace others"})
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.server.branches
        if not known:
            first = hashlib.sha1(name.encode()).hexdigest()
            self.server.commits[name], self.server.branches[name] = {first: {}}, {"main": first}
            self.server.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self._send(409 if known else 200, {"url": f"{self.server.url}/{name}"})

    def _branch(self, _: bytes, name: str, branch: str) -> None:
        if self._may_write():
            known = branch in self.server.branches[name]
            self.server.branches[name].setdefault(branch, self.server.branches[name]["main"])
            self._send(409 if known else 200, {})

    def _modes(self, body: bytes, name: str, revision: str) -> None:
        if self._may_write():
            files = [
                {
                    "path": f["path"],
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if "safetensors" in f["path"] else "regular",
                }
                for f in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        if self._may_write():
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/blobs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})

    def _blob(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._send(200)

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write():
            return
        parent = self.server.commit_of(name, revision)
        files = dict(self.server.commits[name][parent])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        oid = hashlib.sha1(body + parent.encode()).hexdigest()
        self.server.commits[name][oid] = files
        self.server.branches[name][revision] = oid
        self._send(200, {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid, "hookOutput": ""})

    def _may_read(self, name: str, revision: str) -> str | None:
        authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name not in self.server.branches or (self.server.private[name] and not authorized):
            self._send(404 if authorized else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        commit = self.server.commit_of(name, revision)
        if commit is None:
            self._send(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        return commit

    def _info(self, _: bytes, name: str, revision: str | None) -> None:
        if (commit := self._may_read(name, revision or "main")) is not None:
            files = self.server.commits[name][commit]
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            self._send(200, {"id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings})

    def _file(self, _: bytes, name: str, revision: str, file: str) -> None:
        if (commit := self._may_read(name, revision)) is None:
            return
        content = self.server.commits[name][commit].get(file)
        if content is None:
            return self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        self._send(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit)

    def _yaml(self, body: bytes) -> None:
        metadata = json.loads(body)["content"]
        self._send(
            200, {"errors": [], "warnings": []} if metadata.startswith("---\n") else {"errors": [{"message": "none"}]}
        )


_NAME = r"([^/]+/[^/]+)"
_ROUTES = [
    (("POST",), r"/api/repos/create", _Handler._create),
    (("POST",), r"/api/validate-yaml", _Handler._yaml),
    (("POST",), rf"/api/models/{_NAME}/branch/(.+)", _Handler._branch),
    (("POST",), rf"/api/models/{_NAME}/preupload/(.+)", _Handler._modes),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    (("PUT",), r"/blobs/(\w+)", _Handler._blob),
    (("POST",), rf"/api/models/{_NAME}/commit/(.+)", _Handler._commit),
    (("GET",), rf"/api/models/{_NAME}(?:/revision/(.+))?", _Handler._info),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._file),
]


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub without models, which huggingface_hub takes for the real one; with a token that may write."""
    from huggingface_hub import constants

    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
