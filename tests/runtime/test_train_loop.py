"""The network of a training with several workers."""

from torch import nn

from ray_kplm.config import NetworkConfig
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.runtime import train_loop


def test_batch_norms_of_several_workers_share_their_statistics(monkeypatch):
    monkeypatch.setattr(train_loop, "prepare_model", lambda network, move_to_device: network)
    network = KeypointNetwork(NetworkConfig(image_size=64, width=16, depth=1, norm="batch"))
    names, weights = list(network.state_dict()), [id(parameter) for parameter in network.parameters()]
    wrapped = train_loop._distributed(network)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert wrapped is network
    assert len(norms) > 10
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in norms)
    # The optimiser, built earlier, holds the same weights, and the names in a checkpoint are the same.
    assert list(network.state_dict()) == names
    assert [id(parameter) for parameter in network.parameters()] == weights
