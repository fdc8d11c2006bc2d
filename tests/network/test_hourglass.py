"""The networks: shapes, size, weights shared with stage 2, initialisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ray_kplm.config import NetworkConfig
from ray_kplm.network.group_norm import GroupNorm
from ray_kplm.network.hourglass import KeypointNetwork, LandmarkNetwork, parameter_count

SMALL = NetworkConfig(image_size=32, width=16, depth=2, descriptor_dim=8, groups=4)


def network(config: NetworkConfig = SMALL, seed: int = 0) -> KeypointNetwork:
    torch.manual_seed(seed)
    return KeypointNetwork(config)


def image(size: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def block(c_in: int, c_out: int) -> int:
    """Parameters of a residual block: norms (2 a channel) and bias-free convolutions (docs/method.md 1)."""
    shapes = [(c_in, c_out // 2), (c_out // 2, c_out // 4), (c_out // 4, c_out // 4)]
    count = sum(2 * a + 9 * a * b for a, b in shapes)
    return count + (0 if c_in == c_out else 2 * c_in + c_in * c_out)


def test_the_thesis_configuration_has_the_published_size():
    with torch.device("meta"):
        stage1, stage2 = KeypointNetwork(NetworkConfig()), LandmarkNetwork(NetworkConfig(), 30)
        heatmap, descriptors = stage1(torch.empty(2, 3, 256, 256))
        assert heatmap.shape == (2, 64, 64)
        assert descriptors.shape == (2, 256, 64, 64)
        assert stage2(torch.empty(2, 3, 256, 256)).shape == (2, 30, 64, 64)
    stem = 3 * 64 * 49 + 2 * 64 + block(64, 128) + block(128, 128) + block(128, 256)
    hourglass = (4 * 3 + 1) * block(256, 256)
    head = block(256, 256) + 256 * 256 + 256 + 2 * 256
    outputs = (256 + 1) + (256 * 256 + 256)
    assert parameter_count(stage1) == stem + hourglass + 2 * head + outputs == 6_770_881
    # docs/method.md 11: the released network has 8.4 M parameters of which 1.6 M are never used.
    assert parameter_count(stage1) == pytest.approx(8.4e6 - 1.6e6, abs=0.1e6)


def test_a_small_network_has_the_documented_shapes():
    heatmap, descriptors = network()(image())
    assert heatmap.shape == (2, 8, 8)
    assert descriptors.shape == (2, 8, 8, 8)
    assert heatmap.isfinite().all()
    assert descriptors.isfinite().all()


def test_groups_that_do_not_divide_a_layer_use_the_common_divisor():
    config = NetworkConfig(image_size=32, width=48, depth=1, descriptor_dim=8, groups=32)
    made = network(config)
    norms = [m for m in made.modules() if isinstance(m, nn.GroupNorm)]
    assert {(n.num_channels, n.num_groups) for n in norms} == {(c, math.gcd(32, c)) for c in (6, 12, 24, 48)}
    assert made(image())[0].shape == (2, 8, 8)


def test_an_output_depends_on_the_batch_under_batch_norm_but_not_under_group_norm():
    for norm, alone in (("group", True), ("batch", False)):
        made = network(NetworkConfig(image_size=32, width=16, depth=2, descriptor_dim=8, norm=norm, groups=4)).train()
        kinds = {type(m) for m in made.modules() if isinstance(m, (nn.GroupNorm, nn.BatchNorm2d))}
        assert kinds == {GroupNorm if norm == "group" else nn.BatchNorm2d}
        together, single = made(image(batch=4))[1][:1], made(image(batch=4)[:1])[1]
        assert torch.allclose(together, single, atol=1e-5) == alone


def test_stage_2_inherits_all_weights_but_the_last_layer():
    stage1 = network().eval()
    torch.manual_seed(9)
    stage2 = LandmarkNetwork(SMALL, 8)
    fresh = stage2.landmarks.output.weight.clone()
    stage2.start_from(stage1.state_dict())
    stage2.eval()
    torch.testing.assert_close(stage2.landmarks.output.weight, fresh, rtol=0, atol=0)
    taken = dict(stage1.named_parameters())
    for name, value in stage2.named_parameters():
        if not name.startswith("landmarks.output."):
            torch.testing.assert_close(value, taken[name.replace("landmarks.", "descriptor.")], rtol=0, atol=0)
    with torch.no_grad():
        assert not torch.allclose(stage2(image()), stage1(image())[1])
        stage2.landmarks.output.load_state_dict(stage1.descriptor.output.state_dict())
        torch.testing.assert_close(stage2(image()), stage1(image())[1])


def test_stage_2_refuses_weights_of_another_network():
    other = network(NetworkConfig(image_size=32, width=16, depth=3, descriptor_dim=8, groups=4))
    with pytest.raises(AssertionError):
        LandmarkNetwork(SMALL, 5).start_from(other.state_dict())


def test_first_maps_are_nearly_constant_and_convolutions_follow_he():
    made = network(NetworkConfig(image_size=64, width=128, depth=1, descriptor_dim=64))
    outputs = {made.detector.output, made.descriptor.output}
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            expected = 0.01 if module in outputs else math.sqrt(2 / fan_out)
            slack = 5 * expected / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, abs=slack)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.GroupNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    heatmap, descriptors = made(image(64))
    assert heatmap.std() < 0.3  # near-constant maps
    assert descriptors.std() < 0.3


def test_gradient_reaches_every_parameter():
    stage1, stage2 = network(), LandmarkNetwork(SMALL, 3)
    heatmap, descriptors = stage1(image())
    (heatmap.square().sum() + descriptors.square().sum()).backward()
    stage2(image()).square().sum().backward()
    for made in (stage1, stage2):
        for name, parameter in made.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
