"""The network of a training with several workers, and the checkpoints of a training."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from torch import nn

from ray_kplm.config import NetworkConfig
from ray_kplm.errors import DamageError
from ray_kplm.network import distributed
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.runtime import train_loop
from ray_kplm.runtime.checkpoint_writer import CheckpointWriter
from ray_kplm.storage import Folder


def test_batch_norms_of_several_workers_share_their_statistics(monkeypatch):
    given = {}
    monkeypatch.setattr(train_loop, "prepare_model", lambda network, **options: given.update(options) or network)
    network = KeypointNetwork(NetworkConfig(image_size=64, width=16, depth=1, norm="batch"))
    names, weights = list(network.state_dict()), [id(parameter) for parameter in network.parameters()]
    wrapped = train_loop._distributed(network, compiled=False)
    assert given == {"move_to_device": False, "parallel_strategy_kwargs": distributed.PARALLEL}
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert wrapped is network
    assert len(norms) > 10
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    # The optimiser, built earlier, holds the same weights, and the names in a checkpoint are the same.
    assert list(network.state_dict()) == names
    assert [id(parameter) for parameter in network.parameters()] == weights


@pytest.fixture
def checkpointed(tmp_path, monkeypatch):
    """A job with a checkpoint after 30 iterations, in a folder; `restored` has the states that its learner continued from."""
    restored: list[bytes] = []
    learner = SimpleNamespace(freeze=lambda: lambda: b"weights" * 100, restore=restored.append)
    training = SimpleNamespace(start=None)
    job = SimpleNamespace(name="f", target=Folder.at(tmp_path / "stage2"), training=training, inherited=None)

    def keep(report, checkpoint):
        for name in ("state.pt", "position.json"):
            (tmp_path / name).write_bytes((tmp_path.__class__(checkpoint.path) / name).read_bytes())

    monkeypatch.setattr(train_loop.ray.train, "report", keep)
    writer = CheckpointWriter(job.name, 0)
    writer.write(learner.freeze, 30, {"loss": 1.0})
    writer.wait()
    found = SimpleNamespace(as_directory=lambda: nullcontext(tmp_path))
    monkeypatch.setattr(train_loop.ray.train, "get_checkpoint", lambda: found)
    return SimpleNamespace(job=job, learner=learner, folder=tmp_path, restored=restored)


def test_a_training_continues_from_its_checkpoint(checkpointed):
    assert train_loop._resume(checkpointed.learner, checkpointed.job) == 30
    assert checkpointed.restored == [b"weights" * 100]
    checkpointed.job.name = "another"
    assert train_loop._resume(checkpointed.learner, checkpointed.job) == 0


@pytest.mark.parametrize("fault", ["flip", "cut", "empty"])
@pytest.mark.parametrize("name", ["state.pt", "position.json"])
def test_a_damaged_checkpoint_is_not_continued_from(checkpointed, name, fault):
    content = bytearray((checkpointed.folder / name).read_bytes())
    if fault == "flip":
        content[len(content) // 2] ^= 2
    (checkpointed.folder / name).write_bytes(content if fault == "flip" else content[: 50 * (fault == "cut")])
    with pytest.raises(
        DamageError, match=r"stage2: the checkpoint of its training: .*remove the folder `ray` of the run"
    ):
        train_loop._resume(checkpointed.learner, checkpointed.job)
    assert not checkpointed.restored
