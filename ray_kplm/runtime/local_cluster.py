"""A Ray cluster of several nodes on this machine, for measurements and tests that kill its processes."""

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
    """A head node, which drivers join, and other nodes. A context manager: the cluster ends with the block."""

    def __init__(self, head_cpus: int, node_cpus: Sequence[int]) -> None:
        """Start the nodes.

        Args:
            head_cpus: logical CPUs of the head.
            node_cpus: logical CPUs of each other node.
        """
        os.environ.update(ENVIRONMENT | LOCAL)  # the nodes' processes inherit it
        with _address_file_restored():
            self._cluster = Cluster(
                initialize_head=True, head_node_args={"num_cpus": head_cpus, "include_dashboard": False}
            )
        self._nodes = [self._cluster.add_node(num_cpus=cpus) for cpus in node_cpus]
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        """Address of the head, for RAY_ADDRESS."""
        return str(self._cluster.address)

    def count(self, title: str) -> list[int]:
        """Return the number of worker processes whose title contains `title`, on the head and on each other node."""
        return [len(_workers(node, title)) for node in (self._cluster.head_node, *self._nodes)]

    def kill(self, title: str) -> bool:
        """Send SIGKILL to one worker process whose title contains `title`; return whether one exists."""
        for node in [*self._nodes, self._cluster.head_node]:
            for process in _workers(node, title):
                with suppress(psutil.Error):  # the process may have ended
                    process.kill()
                    return True
        return False

    def replace_node(self, title: str) -> bool:
        """Kill a node, and add a new one of the same size.

        It is the first node except the head with a worker process whose title contains `title`. All its processes get SIGKILL.

        Returns:
            Whether such a node exists.
        """
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
        with _address_file_restored():
            self._cluster.shutdown()


@contextmanager
def _address_file_restored() -> Iterator[None]:
    """Restore Ray's address file after the block.

    Ray writes the address of the head that started last into it, and other drivers on this machine would connect to that head.
    """
    address_file = Path(get_ray_address_file(None))
    before = address_file.read_text() if address_file.exists() else None
    yield
    if before is None:
        address_file.unlink(missing_ok=True)
    else:
        address_file.write_text(before)


def _raylet(node: Any) -> int:
    """Return the process id of a node's raylet, the parent of its workers."""
    return int(node.all_processes["raylet"][0].process.pid)


def _workers(node: Any, title: str) -> list[psutil.Process]:
    """Return the worker processes of a node whose title contains `title`."""
    workers = []
    for process in psutil.Process(_raylet(node)).children():
        with suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                workers.append(process)
    return workers
