"""A finished run with an untrained network, its dataset of rendered images, and the page's application, without Ray."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ray_kplm.datasets.dataset import Dataset, IngestOptions
from ray_kplm.datasets.listing import list_source
from ray_kplm.imaging.synthetic.category import write_category
from ray_kplm.run import Run
from ray_kplm.storage import Folder
from ray_kplm.view.app import make_app
from ray_kplm.view.workspace import Workspace

K, IMAGES, SIDE = 4, 24, 64
TOKEN, HOST = "the token", "http://127.0.0.1:8123"
Ask = Callable[[httpx2.AsyncClient], Awaitable[Any]]


@pytest.fixture(scope="session")
def creatures(tmp_path_factory) -> Path:
    """The folder of a dataset of 24 images in parts of 8."""
    folder = tmp_path_factory.mktemp("creatures")
    write_category(folder / "source", IMAGES, size=SIDE, test_share=0.25)
    listing = list_source(folder / "source", IngestOptions(part_images=8))
    root, splits = Folder.at(folder / "dataset"), {}
    for split, entries in listing.splits.items():
        pieces = [entries[start : start + 8] for start in range(0, len(entries), 8)]
        parts = [f"part-{number:05d}.parquet" for number in range(len(pieces))]
        for part, piece in zip(parts, pieces, strict=True):
            (root / split / "images").write_table(part, listing.read_part(piece).images)
        splits[split] = {"images": len(entries), "parts": parts, "rows": [len(piece) for piece in pieces]}
    root.write_json("dataset.json", {"name": "creatures"})
    root.write_json("manifest.json", {"kind": "dataset", "fingerprint": "c" * 64, "splits": splits, "landmarks": 0})
    assert Dataset.open(root).count("test") == 6
    return folder / "dataset"


@pytest.fixture(scope="session")
def finished(untrained_run, creatures, tmp_path_factory) -> Run:
    """A run that is only read."""
    return untrained_run(tmp_path_factory.mktemp("finished"), K, f"dataset={creatures}")


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """A copy of the run, to write to."""
    shutil.copytree(finished.folder.path, tmp_path / "run")
    return Run.open(str(tmp_path / "run"))


@pytest.fixture
def photos(tmp_path, creatures) -> Path:
    """A folder of image files: five pictures, one in a folder, and one that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    table = Dataset.open(Folder.at(creatures)).images("test").read_table("part-00000.parquet")
    for number, content in enumerate(table["image"].to_pylist()[:5]):
        (folder / ("more" if number == 4 else "") / f"{number}.jpg").write_bytes(content)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "note.txt").write_text("no picture")
    return folder


def open_workspace(run: Run, *images: str, labels: str | None = None, **options: Any) -> Workspace:
    """The workspace of a run, by default with the images of its dataset."""
    chosen = list(images) or [run.config.dataset]
    return Workspace.open(run, chosen, labels or f"{run.folder}/labels/labels.json", device="cpu", **options)


def asked(workspace: Workspace, ask: Ask, *, headers: dict[str, str] | None = None, address: str = HOST) -> Any:
    """Return what `ask` returns of a client of the page's application; the client has the page's token."""

    async def work() -> Any:
        transport = httpx2.ASGITransport(make_app(workspace, TOKEN))
        given = {"X-Kplm-Token": TOKEN, "Origin": address} if headers is None else headers
        async with httpx2.AsyncClient(transport=transport, base_url=address, headers=given) as client:
            return await asyncio.wait_for(ask(client), 60)

    return asyncio.run(work())


def get(path: str, **query: Any) -> Ask:
    """A question for `asked`."""
    return lambda client: client.get(path, params=query)


def post(path: str, body: Any) -> Ask:
    """A change for `asked`."""
    return lambda client: client.post(path, json=body)
