"""Placement of networks: the values of `auto` on each machine."""

import pytest
import torch

from ray_kplm.config import ComputeConfig
from ray_kplm.network.compute import Placement


@pytest.mark.parametrize(
    ("device", "flags", "autocast", "channels_last"),
    [
        ("cuda", [], torch.bfloat16, True),
        ("cpu", ["avx2", "amx_bf16"], torch.bfloat16, False),
        ("cpu", ["avx512_bf16"], torch.bfloat16, False),
        ("cpu", ["avx512f"], None, False),
    ],
)
def test_auto_follows_from_the_device_and_the_cpu(monkeypatch, device, flags, autocast, channels_last):
    monkeypatch.setattr("ray_kplm.number_format._cpu_flags", lambda: flags)
    placement = Placement.choose(ComputeConfig(), torch.device(device))
    assert (placement.autocast, placement.channels_last) == (autocast, channels_last)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_configured_holds_on_every_device(device):
    compute = ComputeConfig(precision="fp32", channels_last="yes")
    assert Placement.choose(compute, torch.device(device)) == Placement(torch.device(device), None, True)
