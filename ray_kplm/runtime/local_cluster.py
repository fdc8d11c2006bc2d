"""A Ray cluster of several nodes on this machine, for measurements; its processes can be killed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from ray_kplm.runtime.ray_private import Cluster, get_ray_address_file
from ray_kplm.runtime.session import ENVIRONMENT, LOCAL


class LocalCluster:
    """A head, where drivers are, and other nodes. Use as a context: the cluster ends with it."""

    def __init__(self, head_cpus: int, node_cpus: Sequence[int]) -> None:
        """Logical CPUs of the head and of each other node."""
        os.environ.update(ENVIRONMENT | LOCAL)  # its processes inherit it
        with _found_as_before():
            self._cluster = Cluster(
                initialize_head=True, head_node_args={"num_cpus": head_cpus, "include_dashboard": False}
            )
        self._nodes = [self._cluster.add_node(num_cpus=cpus) for cpus in node_cpus]
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return str(self._cluster.address)

    def count(self, title: str) -> list[int]:
        """Worker processes with this in their title, on the head and on each other node."""
        return [len(_workers(node, title)) for node in (self._cluster.head_node, *self._nodes)]

    def kill(self, title: str) -> bool:
        """SIGKILL one worker process with this in its title; whether there was one."""
        for node in [*self._nodes, self._cluster.head_node]:
            for process in _workers(node, title):
                with suppress(psutil.Error):  # it may have ended just now
                    process.kill()
                    return True
        return False

    def replace_node(self, title: str) -> bool:
        """SIGKILL all processes of a node, not the head, that has a worker process with this in its title, and let a new node
        join; whether there was one."""
        for index, node in enumerate(self._nodes):
            if _workers(node, title):
                cpus = node._ray_params.num_cpus
                for process in psutil.Process(_raylet(node)).children(recursive=True):
                    with suppress(psutil.Error):
                        process.kill()
                self._cluster.remove_node(node, allow_graceful=False)
                self._nodes[index] = self._cluster.add_node(num_cpus=cpus)
                return True
        return False

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _found_as_before():
            self._cluster.shutdown()


@contextmanager
def _found_as_before() -> Iterator[None]:
    """Ray notes the head that began last as the one to be found on this machine, to which jobs of another would go."""
    noted = Path(get_ray_address_file(None))
    before = noted.read_text() if noted.exists() else None
    yield
    if before is None:
        noted.unlink(missing_ok=True)
    else:
        noted.write_text(before)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _workers(node: Any, title: str) -> list[psutil.Process]:
    """Worker processes of a node by a part of their title."""
    found = []
    for process in psutil.Process(_raylet(node)).children():
        with suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found
