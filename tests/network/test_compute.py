"""Placement of networks: the values of `auto` on each machine."""

import pytest
import torch

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import ConfigError
from ray_kplm.network import compute as module
from ray_kplm.network.compute import Placement, choose_device


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
@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_configured_holds_on_every_device(device, compiled):
    compute = ComputeConfig(precision="fp32", channels_last="yes", compile="yes" if compiled else "no")
    assert Placement.choose(compute, torch.device(device)) == Placement(torch.device(device), None, True, compiled)


@pytest.mark.parametrize(("device", "compiled"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_only_cuda_compiles_by_itself(device, compiled):
    assert Placement.choose(ComputeConfig(), torch.device(device)).compiled == compiled


def test_mps_runs_in_float32():
    placement = Placement.choose(ComputeConfig(precision="bf16"), torch.device("mps"))
    assert (placement.device.type, placement.autocast) == ("mps", None)


@pytest.mark.parametrize(
    ("here", "name", "chosen"),
    [
        ({"cuda", "mps"}, "auto", "cuda"),
        ({"mps"}, None, "mps"),
        (set(), "auto", "cpu"),
        ({"cuda"}, "cpu", "cpu"),
        ({"cuda"}, "cuda:1", "cuda:1"),
        ({"mps"}, "mps", "mps"),
    ],
)
def test_auto_is_a_gpu_if_there_is_one(monkeypatch, here, name, chosen):
    monkeypatch.setattr(module, "_HERE", {kind: lambda kind=kind: kind in here for kind in ("cuda", "mps")})
    assert choose_device(name) == torch.device(chosen)


@pytest.mark.parametrize(
    ("name", "reason"), [("cuda", "PyTorch finds none here"), ("mps", "PyTorch finds none here"),
                         ("tpu", "give one of auto, cpu, cuda, mps"), ("cuda:x", "give one of"), ("", "give one of")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, reason):
    monkeypatch.setattr(module, "_HERE", {"cuda": lambda: False, "mps": lambda: False})
    with pytest.raises(ConfigError, match=reason):
        choose_device(name)
