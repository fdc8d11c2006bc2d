"""Compiled network and loss: the steps of the eager ones, and eager ones where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.imaging.warp import IDENTITY_SHIFT
from ray_kplm.methods.batch import Points, Views
from ray_kplm.methods.compiled_loss import POINTS_MULTIPLE, padded
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.pair_objective import JointObjective, PairObjective
from ray_kplm.methods.trainer import Learner, Schedule, load_weights
from ray_kplm.network import distributed
from ray_kplm.network.compute import Placement

ROOT = Path(__file__).parents[2]
SIDE, IMAGES, POINTS, VIEWS, LANDMARKS = 32, 6, 5, 4, 4
CONFIG = load_config(
    None,
    [f"network.image_size={SIDE}", "network.width=16", "network.depth=1", "network.groups=4", "network.descriptor_dim=8",
     f"method.landmarks={LANDMARKS}", "stage1.negative_pairs=60", "stage1.learning_rate=1e-3"],
)  # fmt: skip
OBJECTIVES = {
    "pairs": PairObjective(CONFIG, across=True),
    "landmarks": LandmarkObjective(CONFIG, LANDMARKS),
}


def learner(objective, compile="no", device="cpu", wrap=lambda network: network, config=None) -> Learner:
    rng = np.random.default_rng(0)
    size = (config or CONFIG).network.image_size
    identity = np.stack([rng.permutation(POINTS) for _ in range(IMAGES)]).astype(np.int32)
    xy = rng.uniform(4, size - 4, (IMAGES, POINTS, 2)).astype(np.float32)
    labels = Labels(xy, identity, identity, np.ones((IMAGES, POINTS), bool))
    placement = Placement.choose(ComputeConfig(precision="fp32", compile=compile), torch.device(device))
    return Learner(objective, labels, Schedule(0, 100, ()), placement, (0, 1), wrap)


def batch(iteration: int, rank: int = 0, world: int = 1, size: int = SIDE) -> Views:
    rng = np.random.default_rng(iteration)
    rows = slice(rank * VIEWS // world, (rank + 1) * VIEWS // world)
    image = np.repeat(rng.integers(0, IMAGES, VIEWS // 2), 2)[rows]
    picture = rng.integers(0, 255, (VIEWS, size, size, 3), dtype=np.uint8)[rows]
    plain = np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (len(image), 1, 1))
    return Views(picture, image, np.zeros(len(image), bool), plain, np.tile(IDENTITY_SHIFT, (len(image), 1, 1, 1)))


def losses(subject: Learner, steps: int = 3, rank: int = 0, world: int = 1, size: int = SIDE) -> list[dict[str, float]]:
    done = [subject.step(i, batch(i, rank, world, size)) for i in range(steps)]
    return [{name: float(value) for name, value in parts.items()} for parts in done]


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_compiled_steps_are_the_eager_ones_up_to_rounding(name):
    eager, compiled = learner(OBJECTIVES[name]), learner(OBJECTIVES[name], "yes")
    expected = losses(eager)
    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        found = losses(compiled)
    assert compiled.is_compiled
    assert not eager.is_compiled
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert load_weights(compiled.state()).keys() == load_weights(eager.state()).keys()


@pytest.mark.parametrize("kind", [PairObjective, JointObjective])
def test_padding_changes_no_loss(kind):
    objective = kind(CONFIG, across=True)
    torch.manual_seed(0)
    network, image = objective.network(), torch.rand(VIEWS, 3, SIDE, SIDE)
    identity = torch.arange(POINTS).repeat(VIEWS, 1)
    landmark = identity % LANDMARKS if kind is JointObjective else None
    xy = (SIDE // 4 - 1) * torch.rand(VIEWS, POINTS, 2)
    points = Points(xy, torch.ones(VIEWS, POINTS, dtype=torch.bool), identity, landmark)
    assert padded(points).xy.shape == (VIEWS, POINTS_MULTIPLE, 2)
    cells = objective.random_cells(VIEWS, torch.Generator().manual_seed(0))
    expected, found = (objective.loss(network, image, each, cells)[1] for each in (points, padded(points)))
    assert {k: v.item() for k, v in found.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-6
    )
    assert expected["negative"] > 0


def without_a_compiler() -> None:
    """What the process of the next test does: some steps of a network with batch norms."""
    config = load_config(
        None, [f"network.image_size={SIDE}", "network.width=16", "network.depth=1", "network.norm=batch"]
    )
    objective = LandmarkObjective(config, LANDMARKS)
    eager, compiled = learner(objective), learner(objective, "yes")
    expected = losses(eager)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert losses(compiled) == expected
    messages = [str(each.message) for each in found if each.category is RuntimeWarning]
    assert len(messages) == 1, messages
    assert "compute.compile=no" in messages[0]
    assert "compiler" in messages[0]
    assert "\n" not in messages[0]
    assert not compiled.is_compiled
    one, other = load_weights(compiled.state()), load_weights(eager.state())
    assert all(torch.equal(one[name], other[name]) for name in other)


def run_here(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    environment = {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), **environment}
    return subprocess.Popen([sys.executable, __file__, *arguments], env=os.environ | environment)


def test_without_a_compiler_the_steps_are_the_eager_ones_bit_for_bit(tmp_path):
    process = run_here(tmp_path, "without", CXX="/nowhere/g++")
    assert process.wait(600) == 0


def of_rank(rank: int, world: int, folder: Path) -> None:
    """What a process of the next test does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world)
    objective = OBJECTIVES["pairs"]
    found = {}
    for compile, options in (("no", distributed.PARALLEL), ("yes", distributed.PARALLEL_COMPILED)):
        subject = learner(objective, compile, wrap=lambda net, o=options: DistributedDataParallel(net, **o))
        found[compile] = losses(subject, rank=rank, world=world)
        assert subject.is_compiled == (compile == "yes")
    for one, other in zip(found["yes"], found["no"], strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_take_compiled_the_steps_that_they_take_eager(tmp_path):
    ranks = [run_here(tmp_path, str(rank), str(tmp_path), GLOO_SOCKET_IFNAME="lo") for rank in range(2)]
    try:
        assert [process.wait(900) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
            process.wait()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_gpu_replays_the_eager_steps(name):
    eager, compiled = learner(OBJECTIVES[name], "no", "cuda"), learner(OBJECTIVES[name], "yes", "cuda")
    expected, found = losses(eager, 6), losses(compiled, 6)  # the third one on are replays of CUDA graphs
    assert compiled.is_compiled
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-2)


if __name__ == "__main__":
    if sys.argv[1] == "without":
        without_a_compiler()
    else:
        of_rank(int(sys.argv[1]), 2, Path(sys.argv[2]))
