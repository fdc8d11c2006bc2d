"""A detector as one module from pictures to landmarks: what `kplm export` writes into a file."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ray_kplm.detectors.graph_letterbox import letterbox
from ray_kplm.imaging import coordinates
from ray_kplm.methods.landmark_inference import LandmarkInference

INPUTS = ("images", "min_probability")
OUTPUTS = ("xy", "confidence", "probability", "found")


class ImageGraph(nn.Module):
    """Pictures of any size to their landmarks in their own pixels: letterbox, network, mirror image, decoding, visibility."""

    def __init__(self, inference: LandmarkInference, size: int) -> None:
        """Wrap what a detector computes on inputs of `size` pixels a side."""
        super().__init__()
        self.inference, self.size = inference, size

    def forward(self, images: Tensor, min_probability: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the landmarks of pictures.

        Args:
            images: uint8 (N, H, W, 3), RGB.
            min_probability: float32 scalar, least probability of a landmark that is found.

        Returns:
            xy float32 (N, K, 2), pixels with centres at integers; confidence, probability float32 (N, K); found bool (N, K).
            They are those of `landmark_detector.Landmarks`.
        """
        boxed = letterbox(images, self.size)
        cells, confidence, probability = self.inference.decode(*self._maps(boxed.image_N3SS / 255))
        xy = boxed.to_source(cells * coordinates.STRIDE + (coordinates.STRIDE - 1) / 2)
        return xy, confidence, probability, ~(probability < min_probability)

    def _maps(self, image_N3SS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what `LandmarkInference.maps` does, with the network once in the graph, which halves its size."""
        if not self.inference.flip:
            return self.inference.maps(image_N3SS)
        both = self.inference.network(torch.cat([image_N3SS, image_N3SS.flip(-1)])).float()
        number = image_N3SS.shape[0]  # `len` would fix it in a trace
        return both[:number], both[number:]


class HalfNetwork(nn.Module):
    """A network that stores and computes in float16; inputs and outputs stay float32."""

    def __init__(self, network: nn.Module) -> None:
        """Convert the network."""
        super().__init__()
        self.network = network.half()

    def forward(self, image_B3SS: Tensor) -> Tensor:
        """Map images (0 to 1) to heatmaps BKhw."""
        heatmaps: Tensor = self.network(image_B3SS.half()).float()
        return heatmaps


def traced(graph: ImageGraph) -> torch.export.ExportedProgram:
    """Return the operations of a graph, for any number of pictures of any size.

    It must have run before, as tables that `heatmaps.decode` computes once must not be computed in a trace.
    """
    examples = torch.zeros((2, 37, 53, 3), dtype=torch.uint8), torch.scalar_tensor(0.5)
    any_length = torch.export.Dim.DYNAMIC
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        graph(*examples)
        return torch.export.export(
            graph, examples, dynamic_shapes=({0: any_length, 1: any_length, 2: any_length}, None), strict=False
        )
