"""Group norm of channels-last images: equal to PyTorch's, in their layout. The path for CUDA is called on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from ray_kplm.config import NetworkConfig
from ray_kplm.network.group_norm import GroupNorm, group_norm_channels_last
from ray_kplm.network.hourglass import LandmarkNetwork

EPS = 1e-5


def images(dtype: torch.dtype, channels: int = 12, side: int = 9, mean: float = 2.0) -> Tensor:
    drawn = torch.randn(3, channels, side, side + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (3 * drawn + mean).to(dtype).contiguous(memory_format=torch.channels_last)


def affine(channels: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(2, channels, generator=generator, dtype=dtype)
    return weight, bias


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_it_equals_the_group_norm_of_pytorch(groups, dtype, tolerance):
    x, (weight, bias) = images(dtype), affine()
    found = group_norm_channels_last(x, groups, weight, bias, EPS)
    expected = functional.group_norm(x.double(), groups, weight.double(), bias.double(), EPS)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_constant_images_give_the_bias():
    weight, bias = affine()
    x = torch.full((2, 12, 4, 4), 7.0).contiguous(memory_format=torch.channels_last)
    found = group_norm_channels_last(x, 3, weight, bias, EPS)
    torch.testing.assert_close(found, bias.view(1, -1, 1, 1).expand_as(found), rtol=0, atol=1e-2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_its_gradients_are_those_of_its_output(groups):
    x = images(torch.float64, 4, 3).requires_grad_()
    weight, bias = (value.requires_grad_() for value in affine(4, torch.float64))
    assert torch.autograd.gradcheck(group_norm_channels_last, (x, groups, weight, bias, EPS))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 4e-2)])
def test_its_gradients_are_those_of_pytorch(dtype, tolerance):
    upstream = images(dtype, mean=0.1)
    gradients = []
    for norm, as_type in ((group_norm_channels_last, dtype), (functional.group_norm, torch.float64)):
        x = images(dtype).to(as_type).requires_grad_()
        number = torch.float32 if as_type == dtype else as_type
        weight, bias = (value.to(number).requires_grad_() for value in affine())
        norm(x, 3, weight, bias, EPS).backward(upstream.to(as_type))
        gradients.append([x.grad, weight.grad, bias.grad])
    for found, expected in zip(*gradients, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * scale)


def test_output_and_gradient_stay_channels_last_in_memory_of_their_own():
    x = images(torch.bfloat16).requires_grad_()
    before = x.detach().clone()
    weight, bias = affine()
    found = group_norm_channels_last(x, 3, weight, bias, EPS)
    found.relu_().sum().backward()  # as in the network: the ReLU works in place
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    assert found.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert torch.equal(x, before)


def test_no_operation_copies_the_images():
    """In float32: on the CPU, but not on CUDA, PyTorch's reductions of bfloat16 to float32 convert their input before."""
    x, upstream, (weight, bias) = images(torch.float32).requires_grad_(), images(torch.float32), affine()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        group_norm_channels_last(x, 3, weight, bias, EPS).backward(upstream)
    operations = [(event.name, event.input_shapes) for event in profiled.events()]
    assert "aten::addcmul" in [name for name, _ in operations]
    copied = [shapes for name, shapes in operations if name in ("aten::copy_", "aten::contiguous", "aten::clone")]
    assert not [shapes for shapes in copied if shapes[0] in ([3, 12, 9, 10], [3, 3, 4, 9, 10])]


def test_on_the_cpu_it_is_the_group_norm_of_pytorch():
    own, theirs = GroupNorm(3, 12), nn.GroupNorm(3, 12)
    own.load_state_dict(theirs.state_dict())
    for x in (images(torch.float32), images(torch.float32).contiguous()):
        assert torch.equal(own(x), theirs(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_forward_on_a_gpu_copies_no_images():
    """What autocast converts is the weights, once each."""
    network = LandmarkNetwork(NetworkConfig(image_size=64, width=32, depth=2), 8).to("cuda")
    network = network.to(memory_format=torch.channels_last).eval()
    x = torch.rand(5, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        network(x)  # the first call chooses algorithms
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True) as profiled:
            network(x)
    copies = [event for event in profiled.events() if event.name in ("aten::copy_", "aten::contiguous")]
    assert copies
    batches = [event.input_shapes[0] for event in copies if event.input_shapes[0][:1] == [5]]  # no layer has 5 channels
    images_copied = [shape for shape in batches if shape[2:] != [1, 1] and shape != [5, 3, 64, 64]]
    assert not images_copied, images_copied


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_normalises_as_the_cpu_does(dtype):
    norm = GroupNorm(3, 12)
    x = images(dtype)
    on_gpu = norm.to("cuda")(x.to("cuda"))
    assert on_gpu.dtype == dtype
    assert on_gpu.is_contiguous(memory_format=torch.channels_last)
    expected = functional.group_norm(x.float(), 3)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(on_gpu.float().cpu(), expected, rtol=tolerance, atol=tolerance)
