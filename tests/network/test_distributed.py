"""Several ranks that share a batch have the gradients, and report the losses, of one process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.imaging.warp import IDENTITY_SHIFT
from ray_kplm.methods.batch import Views
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.pair_objective import JointObjective, PairObjective, PointObjective
from ray_kplm.methods.trainer import Learner, Objective, Schedule
from ray_kplm.network import distributed
from ray_kplm.network.compute import Placement
from ray_kplm.schemas import NONE

ROOT = Path(__file__).parents[2]
SIDE, VIEWS, LANDMARKS = 32, 8, 4
WORLDS = (4, 2)
POINTS = (9, 8, 7, 8, 3, 2, 1, 4)
"""Of each image: the shares of two and of four ranks hold very different numbers of points, pairs and labels."""
SMALL = [
    f"network.image_size={SIDE}", "network.width=16", "network.depth=1", "network.groups=4", "network.descriptor_dim=8",
    f"method.landmarks={LANDMARKS}", "stage1.negative_pairs=60", "stage1.margin=2", "stage1.rounds=1",
]  # fmt: skip
CHOICES = {
    "correspondence": ("clustering", "equivariance"),
    "positives": ("pair", "batch"),
    "negatives": ("same_image", "different_cluster"),
    "pair_weighting": ("all", "balanced"),
}


def pairs(across: bool, negatives: str, kind: type[PairObjective] = PairObjective, **stage1: str) -> PairObjective:
    config = load_config(None, [*SMALL, *(f"stage1.{name}={value}" for name, value in stage1.items())])
    return kind(config, across, negatives)


def cases() -> dict[str, tuple[Objective, bool]]:
    """Name -> what is minimised, and whether it is in a round: its pairs are two images then, and clusters have landmarks."""
    found: dict[str, tuple[Objective, bool]] = {}
    for values in itertools.product(*CHOICES.values()):
        found["round " + " ".join(values)] = pairs(across=True, **dict(zip(CHOICES, values, strict=True))), True
    for weighting in CHOICES["pair_weighting"]:
        found[f"warm-up {weighting}"] = pairs(False, "same_image", pair_weighting=weighting), False
    found["joint round"] = pairs(True, "same_image", JointObjective), True
    found["joint warm-up"] = pairs(False, "same_image", JointObjective), False
    found["points"] = PointObjective(load_config(None, SMALL)), True
    found["landmarks"] = LandmarkObjective(load_config(None, SMALL), LANDMARKS), True
    return found


def labels(in_round: bool) -> Labels:
    """Of the warm-up, where the identity is the index, or of a round."""
    rng = np.random.default_rng(0)
    present = np.arange(max(POINTS)) < np.array(POINTS)[:, None]
    identity = np.stack([rng.permutation(max(POINTS)) if in_round else np.arange(max(POINTS)) for _ in POINTS])
    identity = np.where(present, identity, NONE).astype(np.int32)
    landmark = np.where((identity >= 0) & (identity < LANDMARKS), identity, NONE).astype(np.int32)
    xy = rng.uniform(0, SIDE - 1, (*present.shape, 2)).astype(np.float32)
    return Labels(xy, identity, identity[:, ::-1], present, *((landmark, landmark) if in_round else ()))


def share(rank: int, world: int, in_round: bool) -> Views:
    """A rank's views of the batch of four pairs."""
    rng = np.random.default_rng(1)
    rows = slice(rank * VIEWS // world, (rank + 1) * VIEWS // world)
    image = np.arange(VIEWS) if in_round else np.repeat(np.arange(0, VIEWS, 2), 2)
    picture = rng.integers(0, 255, (VIEWS, SIDE, SIDE, 3), dtype=np.uint8)
    affine = np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (VIEWS, 1, 1))
    affine[:, :, 2] = rng.uniform(-2, 2, (VIEWS, 2))
    still = np.tile(IDENTITY_SHIFT, (VIEWS, 1, 1, 1))
    return Views(picture[rows], image[rows], np.zeros(VIEWS, bool)[rows], affine[rows], still[rows])


def step(objective: Objective, in_round: bool, rank: int = 0, world: int = 1) -> dict:
    """The gradient of the first step of a rank, flat, and what it reports."""
    placement = Placement.choose(ComputeConfig(precision="fp32"), torch.device("cpu"))
    wrap = partial(DistributedDataParallel, **distributed.PARALLEL) if world > 1 else lambda network: network
    learner = Learner(objective, labels(in_round), Schedule(0, 10, ()), placement, (0, 1), wrap)
    if isinstance(objective, PairObjective):
        with torch.no_grad():  # descriptors begin nearly equal, where the hinge's gradient is rounding
            learner.network.descriptor.output.weight *= 50
    parts = learner.step(3, share(rank, world, in_round))
    gradient = torch.cat([parameter.grad.flatten() for parameter in learner.network.parameters()])
    return {"gradient": gradient, "parts": {name: float(value) for name, value in parts.items()}}


@cache
def alone(name: str) -> dict:
    """What one process finds, which has no process group."""
    return step(*cases()[name])


def of_rank(rank: int, folder: Path) -> None:
    """What a process does: all cases as one of four ranks, then, if it is still one, as one of two."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank >= world:
            return
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/group{world}", rank=rank, world_size=world
        )
        found = {name: step(*case, rank, world) for name, case in cases().items()}
        rows = torch.arange(6).reshape(3, 2) + 10 * rank
        found["gathered"] = distributed.gather_rows(rows)
        found["own"] = distributed.own_rows(found["gathered"])
        found["sum"] = distributed.sum_over_ranks(torch.tensor(2.0**rank))
        torch.save(found, folder / f"{world}-{rank}.pt")
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory) -> dict[int, list[dict]]:
    """World size -> what each of its ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__]
    ranks = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(max(WORLDS))]
    try:
        assert [process.wait(600) for process in ranks] == [0] * len(ranks)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    return {world: [torch.load(folder / f"{world}-{rank}.pt") for rank in range(world)] for world in WORLDS}


@pytest.mark.parametrize("name", cases())
def test_any_number_of_ranks_has_the_gradient_of_one_process(of_ranks, name):
    one = alone(name)
    assert one["gradient"].norm() > 1e-3
    for world in WORLDS:
        found = [rank[name] for rank in of_ranks[world]]
        for rank in found:
            error = (rank["gradient"] - one["gradient"]).norm() / one["gradient"].norm()
            cosine = torch.cosine_similarity(rank["gradient"], one["gradient"], dim=0)
            ratio = rank["gradient"].norm() / one["gradient"].norm()
            assert error < 1e-4, f"{world} ranks: cosine {cosine:.4f}, ratio {ratio:.4f}"


@pytest.mark.parametrize("name", cases())
def test_what_ranks_report_is_on_average_what_one_process_reports(of_ranks, name):
    one = alone(name)["parts"]
    for world in WORLDS:
        found = [rank[name]["parts"] for rank in of_ranks[world]]
        mean = {part: np.mean([rank[part] for rank in found]) for part in one}
        assert mean == pytest.approx(one, rel=1e-4), f"{world} ranks"


def test_rows_of_all_ranks_are_in_the_order_of_ranks(of_ranks):
    for world in WORLDS:
        for rank, found in enumerate(of_ranks[world]):
            assert found["gathered"][:, 0].tolist() == [10 * other + row for other in range(world) for row in (0, 2, 4)]
            assert found["own"].tolist() == found["gathered"][3 * rank : 3 * rank + 3].tolist()
            assert found["sum"].item() == 2**world - 1


def test_a_single_process_is_rank_0_of_1():
    rows = torch.ones(3, 2, requires_grad=True)
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert not distributed.gather_rows(rows).requires_grad
    assert distributed.own_rows(rows).tolist() == rows.tolist()
    assert distributed.sum_over_ranks(rows).tolist() == rows.tolist()


def test_a_share_of_the_mean_of_nothing_is_zero():
    assert distributed.share_of_mean(torch.tensor(6.0), torch.tensor(4)).item() == 1.5
    assert distributed.share_of_mean(torch.tensor(0.0), torch.tensor(0)).item() == 0


if __name__ == "__main__":
    of_rank(int(sys.argv[1]), Path(sys.argv[2]))
