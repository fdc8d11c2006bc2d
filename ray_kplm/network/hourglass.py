"""The networks of all methods: one hourglass with a detector head, a descriptor head or a landmark head.

Axes in names: B images, C channels, S input side, h = w = S / 4 heatmap side, d descriptor width, K landmarks.
Sources: thesis 2.3 and 6.1.1; residual block: Bulat & Tzimiropoulos, ICCV 2017; hourglass: Newell et al., ECCV 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ray_kplm.config import NetworkConfig
from ray_kplm.network.group_norm import GroupNorm

Norm = Callable[[int], nn.Module]


def _norm(kind: str, groups: int) -> Norm:
    """Return the constructor of the norm layer for a number of channels; group sizes divide the channels."""
    match kind:
        case "group":
            return lambda channels: GroupNorm(math.gcd(groups, channels), channels)
        case "batch":
            return nn.BatchNorm2d
        case _:
            raise AssertionError(kind)  # the configuration is checked


def _activated_conv(norm: Norm, c_in: int, c_out: int, kernel: int) -> nn.Sequential:
    """Return a pre-activated convolution: norm, ReLU, convolution."""
    return nn.Sequential(
        norm(c_in), nn.ReLU(inplace=True), nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
    )


class ResidualBlock(nn.Module):
    """Hierarchical, multi-scale residual block: 3x3 convolutions of C/2, C/4, C/4 outputs, concatenated, plus a shortcut."""

    def __init__(self, c_in: int, c_out: int, norm: Norm) -> None:
        """Build the block for `c_in` input and `c_out` output channels."""
        super().__init__()
        half, quarter = c_out // 2, c_out // 4
        self.conv1 = _activated_conv(norm, c_in, half, 3)
        self.conv2 = _activated_conv(norm, half, quarter, 3)
        self.conv3 = _activated_conv(norm, quarter, quarter, 3)
        self.shortcut = nn.Identity() if c_in == c_out else _activated_conv(norm, c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map BChw to BChw."""
        # The in-place ReLU changes the norm's output, not x, which the shortcut reads.
        y1 = self.conv1(x)
        y2 = self.conv2(y1)
        y3 = self.conv3(y2)
        shortcut: Tensor = self.shortcut(x)
        return torch.cat([y1, y2, y3], dim=1) + shortcut


class Hourglass(nn.Module):
    """Hourglass: a skip connection at this resolution plus an hourglass of one level less at half the resolution."""

    def __init__(self, depth: int, width: int, norm: Norm) -> None:
        """Build an hourglass of `depth` levels and `width` channels."""
        super().__init__()
        self.skip = ResidualBlock(width, width, norm)
        self.pool = nn.AvgPool2d(2)
        self.down = ResidualBlock(width, width, norm)
        self.inner = Hourglass(depth - 1, width, norm) if depth > 1 else ResidualBlock(width, width, norm)
        self.up = ResidualBlock(width, width, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map BChw to BChw."""
        low = self.up(self.inner(self.down(self.pool(x))))
        skip: Tensor = self.skip(x)
        return skip + nn.functional.interpolate(low, scale_factor=2, mode="nearest")


class Head(nn.Module):
    """Output head: residual block, 1x1 convolution, norm, ReLU and a 1x1 convolution to the output channels."""

    def __init__(self, width: int, channels: int, norm: Norm) -> None:
        """Build the head for `width` input and `channels` output channels."""
        super().__init__()
        self.features = nn.Sequential(
            ResidualBlock(width, width, norm), nn.Conv2d(width, width, 1), norm(width), nn.ReLU(inplace=True)
        )
        self.output = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features BChw to the output maps."""
        output: Tensor = self.output(self.features(x))
        return output


class Backbone(nn.Module):
    """Stem (side S -> S/4) and hourglass."""

    def __init__(self, config: NetworkConfig, norm: Norm) -> None:
        """Build the backbone of the configured width and depth."""
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 4, 7, stride=2, padding=3, bias=False),
            norm(width // 4),
            nn.ReLU(inplace=True),
            ResidualBlock(width // 4, width // 2, norm),
            nn.AvgPool2d(2),
            ResidualBlock(width // 2, width // 2, norm),
            ResidualBlock(width // 2, width, norm),
        )
        self.hourglass = Hourglass(config.depth, width, norm)

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Map images (0 to 1) to features BChw."""
        features: Tensor = self.hourglass(self.stem(image_B3SS))
        return features


class KeypointNetwork(nn.Module):
    """Stage 1: keypoint detector and descriptor (thesis 6.1.1)."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build and initialise the network."""
        super().__init__()
        norm = _norm(config.norm, config.groups)
        self.backbone = Backbone(config, norm)
        self.detector = Head(config.width, 1, norm)
        self.descriptor = Head(config.width, config.descriptor_dim, norm)
        initialise(self)

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (0 to 1) to heatmap logits Bhw and descriptors Bdhw (not normalised)."""
        features = self.backbone(image_B3SS)
        return self.detector(features)[:, 0], self.descriptor(features)

    def load_shared_weights(self, weights: dict[str, Tensor]) -> None:
        """Load weights of a `KeypointNetwork`, or the weights of a `JointNetwork` without its landmark head."""
        self.load_state_dict({name: value for name, value in weights.items() if not name.startswith("landmarks.")})


class JointNetwork(KeypointNetwork):
    """Both stages at once: keypoints, descriptors and K landmark heatmaps from the same features (thesis 7.2)."""

    def __init__(self, config: NetworkConfig, landmarks: int) -> None:
        """Build and initialise the network for K = `landmarks`."""
        super().__init__(config)
        self.landmarks = Head(config.width, landmarks, _norm(config.norm, config.groups))
        initialise(self.landmarks)
        nn.init.normal_(self.landmarks.output.weight, std=0.01)

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Map images (0 to 1) to heatmap logits Bhw, descriptors Bdhw and landmark heatmaps BKhw."""
        features = self.backbone(image_B3SS)
        return self.detector(features)[:, 0], self.descriptor(features), self.landmarks(features)


class DetectorNetwork(nn.Module):
    """Keypoint detector without descriptors (thesis 4.2)."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build and initialise the network."""
        super().__init__()
        norm = _norm(config.norm, config.groups)
        self.backbone = Backbone(config, norm)
        self.detector = Head(config.width, 1, norm)
        initialise(self)

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Map images (0 to 1) to heatmap logits Bhw."""
        logits: Tensor = self.detector(self.backbone(image_B3SS))[:, 0]
        return logits


class LandmarkNetwork(nn.Module):
    """Stage 2: K landmark heatmaps, linear output (thesis 6.1.7)."""

    def __init__(self, config: NetworkConfig, landmarks: int) -> None:
        """Build and initialise the network for K = `landmarks`."""
        super().__init__()
        norm = _norm(config.norm, config.groups)
        self.backbone = Backbone(config, norm)
        self.landmarks = Head(config.width, landmarks, norm)
        initialise(self)

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Map images (0 to 1) to heatmaps BKhw."""
        heatmaps: Tensor = self.landmarks(self.backbone(image_B3SS))
        return heatmaps

    def start_from(self, stage1: dict[str, Tensor]) -> None:
        """Load stage 1's weights; the descriptor head becomes the landmark head except for its last layer (thesis 6.2.1)."""
        shared = {
            name.replace("descriptor.", "landmarks.", 1): value
            for name, value in stage1.items()
            if name.startswith(("backbone.", "descriptor.features."))
        }
        missing, unexpected = self.load_state_dict(shared, strict=False)
        assert not unexpected, unexpected
        assert all(name.startswith("landmarks.output.") for name in missing), missing


def initialise(network: nn.Module) -> None:
    """Initialise convolutions by He et al. 2015 and output layers with small weights.

    The first output maps are nearly constant. Norm layers keep PyTorch's initialisation, the identity.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Head):
            nn.init.normal_(module.output.weight, std=0.01)


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())
