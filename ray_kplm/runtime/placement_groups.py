"""Placement groups whose maker died. Ray keeps what an actor reserved until its job ends too (Ray 2.60): the workers' group of
a controller that was killed, or of a trial's process, would take its CPUs and GPUs from all that comes after in a sweep."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from ray_kplm.runtime.ray_private import PlacementGroupTableData, state


def remove_orphaned_placement_groups() -> int:
    """Remove those of this job; how many there were. Groups that a driver made are its own."""
    found = state._connect_and_get_accessor().get_placement_group_table()
    left = [group for group in map(PlacementGroupTableData.FromString, found) if _is_left(group)]
    for group in left:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(left)


def _is_left(group: PlacementGroupTableData) -> bool:
    of_actor = not ray.ActorID(group.creator_actor_id).is_nil()
    of_this_job = group.creator_job_id.hex() == ray.get_runtime_context().get_job_id()
    return of_this_job and of_actor and group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED
