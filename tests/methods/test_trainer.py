"""The training step without Ray: deterministic, resumable, and the same on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ray_kplm.config import ComputeConfig, load_config
from ray_kplm.imaging.warp import IDENTITY_SHIFT
from ray_kplm.methods import build_method
from ray_kplm.methods.batch import Points, Views
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.landmark_objective import LandmarkObjective
from ray_kplm.methods.pair_objective import JointObjective, PairObjective
from ray_kplm.methods.trainer import Learner, Schedule, load_weights
from ray_kplm.network.compute import Placement

CONFIG = load_config(
    None,
    ["network.image_size=64", "network.width=32", "network.depth=2", "network.groups=4", "network.descriptor_dim=16",
     "method.landmarks=4", "method.clusters=8", "stage1.negative_pairs=200", "stage1.learning_rate=1e-3"],
)  # fmt: skip
IMAGES, POINTS, VIEWS = 6, 5, 4
IDENTITY_MAP = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (VIEWS, 1, 1))


def labels():
    rng = np.random.default_rng(0)
    identity = np.tile(np.arange(POINTS, dtype=np.int32), (IMAGES, 1))
    xy = rng.uniform(4, 60, (IMAGES, POINTS, 2)).astype(np.float32)
    return Labels(xy, identity, identity, np.ones((IMAGES, POINTS), bool))


def learner(device="cpu", precision="fp32", number=0, objective=None):
    placement = Placement.choose(ComputeConfig(precision=precision), torch.device(device))
    objective = objective or build_method(CONFIG).objective(number)
    return Learner(objective, labels(), Schedule(0, 100, (0.5,)), placement, (0, 1, number))


def batch(iteration):
    rng = np.random.default_rng(iteration)
    image = np.repeat(rng.integers(0, IMAGES, VIEWS // 2), 2)
    view = rng.integers(0, 255, (IMAGES, 64, 64, 3), dtype=np.uint8)[image]
    return Views(view, image, np.zeros(VIEWS, bool), IDENTITY_MAP, np.tile(IDENTITY_SHIFT, (VIEWS, 1, 1, 1)))


def train(subject, first, last):
    return [{k: float(v) for k, v in subject.step(i, batch(i)).items()} for i in range(first, last)]


def test_the_same_seed_gives_the_same_losses_and_weights():
    one, two = learner(), learner()
    assert train(one, 0, 4) == train(two, 0, 4)
    assert one.state() == two.state()


def test_a_restored_learner_continues_bit_for_bit():
    whole, first = learner(), learner()
    train(whole, 0, 6)
    train(first, 0, 3)
    second = learner()
    second.restore(first.state())
    train(second, 3, 6)
    a, b = load_weights(whole.state()), load_weights(second.state())
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_frozen_state_is_that_of_its_time_and_byte_for_byte_what_state_would_have_been():
    subject = learner()
    train(subject, 0, 2)
    frozen, then = subject.freeze(), subject.state()
    train(subject, 2, 4)
    assert subject.state() != then
    assert frozen() == then


def test_training_lowers_the_loss():
    subject = learner()
    losses = [step["loss"] for step in train(subject, 0, 40)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_cosine_falls_to_a_hundredth():
    schedule = Schedule(first=0, total=100, decay_at=(0.5,), factor=2.0, decay="cosine")
    factors = [schedule(i) for i in range(101)]
    assert [round(factors[i], 6) for i in (0, 50, 100)] == [2.0, 1.01, 0.02]
    assert (np.diff(factors) < 0).all()


def test_the_rate_falls_tenfold_at_shares_of_the_whole_stage():
    schedule = Schedule(first=40, total=100, decay_at=(0.5, 0.9), factor=2.0)
    assert [round(schedule(i), 6) for i in (0, 9, 10, 49, 50)] == [2.0, 2.0, 0.2, 0.2, 0.02]


def test_stage_2_starts_from_stage_1_and_learns_its_channels():
    stage1 = learner()
    subject = learner(objective=build_method(CONFIG).landmark_objective(4))
    before = load_weights(subject.state())["backbone.stem.0.weight"]
    subject.start_from(stage1.state())
    after = load_weights(subject.state())["backbone.stem.0.weight"]
    assert torch.equal(after, load_weights(stage1.state())["backbone.stem.0.weight"])
    assert not torch.equal(before, after)
    assert train(subject, 0, 1)[0]["labelled"] == 4  # point 4 has no channel


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_the_same_steps_as_the_cpu():
    on_gpu = train(learner("cuda"), 0, 3)
    on_cpu = train(learner(), 0, 3)
    assert on_gpu[0]["detector"] == pytest.approx(on_cpu[0]["detector"], rel=1e-3)
    assert np.isfinite([step["loss"] for step in train(learner("cuda", "auto"), 0, 3)]).all()


@pytest.mark.parametrize("kind", ["warm-up", "round", "different clusters", "joint", "landmarks"])
def test_network_and_loss_are_one_graph(kind):
    across = kind != "warm-up"
    negatives = "different_cluster" if kind == "different clusters" else "same_image"
    match kind:
        case "joint":
            objective = JointObjective(CONFIG, across)
        case "landmarks":
            objective = LandmarkObjective(CONFIG, 4)
        case _:
            objective = PairObjective(CONFIG, across, negatives)
    network = objective.network()
    image = torch.rand(VIEWS, 3, 64, 64)
    identity = torch.arange(POINTS).repeat(VIEWS, 1) % 4
    landmark = identity if kind == "joint" else None
    points = Points(15 * torch.rand(VIEWS, POINTS, 2), torch.ones(VIEWS, POINTS, dtype=torch.bool), identity, landmark)
    cells = objective.random_cells(VIEWS, torch.Generator().manual_seed(0))

    def loss(image, xy):
        return objective.loss(network, image, replace(points, xy=xy), cells)[0]

    found = torch._dynamo.explain(loss)(image, points.xy)
    assert found.graph_count == 1
    assert found.graph_break_count == 0, found.break_reasons


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_frozen_state_of_a_gpu_is_that_of_its_time():
    subject = learner("cuda")
    train(subject, 0, 2)
    frozen, then = subject.freeze(), load_weights(subject.state())
    train(subject, 2, 4)
    now, copied = load_weights(subject.state()), load_weights(frozen())
    assert all(torch.equal(copied[name], then[name]) for name in then)
    assert not all(torch.equal(now[name], then[name]) for name in then)
