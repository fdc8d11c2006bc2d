"""Remove placement groups whose creator died.

Ray keeps the placement group of a dead actor until its job ends (Ray 2.60). The group of a training controller or of a trial's
process that was killed would reserve CPUs and GPUs for the rest of a sweep.
"""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from ray_kplm.runtime.ray_private import PlacementGroupTableData, state


def remove_orphaned_placement_groups() -> int:
    """Remove the placement groups of this job whose creating actor died, and return their number.

    Groups that a driver created are kept.
    """
    records = state._connect_and_get_accessor().get_placement_group_table()
    orphans = [group for group in map(PlacementGroupTableData.FromString, records) if _is_orphaned(group)]
    for group in orphans:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(orphans)


def _is_orphaned(group: PlacementGroupTableData) -> bool:
    by_actor = not ray.ActorID(group.creator_actor_id).is_nil()
    in_this_job = group.creator_job_id.hex() == ray.get_runtime_context().get_job_id()
    return bool(
        in_this_job and by_actor and group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED
    )
