"""Placement groups whose creator died."""

import os
import signal
import time

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from ray_kplm.runtime.placement_groups import remove_orphaned_placement_groups

pytestmark = pytest.mark.usefixtures("ray_cluster")


@ray.remote(num_cpus=0)
class Creator:
    def create(self):
        group = placement_group([{"CPU": 1}])
        group.wait(20)
        return group

    def pid(self):
        return os.getpid()


def state(group):
    return placement_group_table(group)["state"]


def test_only_placement_groups_of_dead_actors_are_removed():
    dead, alive, own = Creator.remote(), Creator.remote(), placement_group([{"CPU": 1}])
    groups = [ray.get(dead.create.remote()), ray.get(alive.create.remote()), own]
    assert remove_orphaned_placement_groups() == 0
    os.kill(ray.get(dead.pid.remote()), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not remove_orphaned_placement_groups():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [state(group) for group in groups] == ["REMOVED", "CREATED", "CREATED"]
    assert remove_orphaned_placement_groups() == 0
    for group in groups[1:]:
        remove_placement_group(group)
