"""A detector as one module from pictures to landmarks: what `kplm export` writes into a file."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ray_kplm.detectors.graph_facing import GraphFacing
from ray_kplm.detectors.graph_letterbox import letterbox
from ray_kplm.imaging import coordinates
from ray_kplm.methods.landmark_inference import LandmarkInference
from ray_kplm.points.graph import PointGraph

INPUTS = ("images", "min_probability")
OUTPUTS = ("xy", "confidence", "probability", "found")
BOXES, FACING = "boxes", "facing"
"""A further input and a further output of graphs of categories seen from the side."""


class ImageGraph(nn.Module):
    """Pictures of any size to their points in their own pixels: landmarks, or what is made of them.

    Letterbox, network, mirror image, decoding, visibility and points; for a category seen from the side also which way objects
    face.
    """

    def __init__(
        self,
        inference: LandmarkInference,
        size: int,
        facing: GraphFacing | None = None,
        points: PointGraph | None = None,
    ) -> None:
        """Wrap what a detector computes.

        Args:
            inference: Of inputs.
            size: Of these, pixels a side.
            facing: Turns them to face one way; None: they stay.
            points: What the landmarks are made into; None: they stay.
        """
        super().__init__()
        self.inference, self.size, self.facing, self.points = inference, size, facing, points

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [*INPUTS, BOXES] if self.facing else [*INPUTS]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [*OUTPUTS, FACING] if self.facing else [*OUTPUTS]

    def forward(self, images: Tensor, min_probability: Tensor, boxes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the landmarks of pictures.

        Args:
            images: uint8 (N, H, W, 3), RGB.
            min_probability: float32 scalar, least probability of a landmark that is found.
            boxes: float32 (N, 4), or (1, 4) for all, x0, y0, x1, y1 of the objects in pixels, NaN where unknown. Only a graph
                that gives facings has them.

        Returns:
            xy float32 (N, K, 2), pixels with centres at integers; confidence, probability float32 (N, K); found bool (N, K);
            and the facings, float32 (N,), of a graph that gives them. They are those of `landmark_detector.Landmarks`.
        """
        boxed = letterbox(images, self.size)
        if self.facing is None or boxes is None:
            cells, *values = self.inference.decode(*self._maps(boxed.image_N3SS / 255))
            xy, confidence, probability = self._made(_in_input(cells), *values)
            return boxed.to_source(xy), confidence, probability, ~(probability < min_probability)
        which = torch.arange(images.shape[0]).clamp(max=boxes.shape[0] - 1)
        inside = boxed.to_input(boxes.index_select(0, which).view(-1, 2, 2)).flatten(1)
        xy, confidence, probability, facing = self._turned(boxed.image_N3SS, self.facing, inside)
        return boxed.to_source(xy), confidence, probability, ~(probability < min_probability), facing

    def _turned(self, image_N3SS: Tensor, rule: GraphFacing, box_N4: Tensor) -> tuple[Tensor, ...]:
        """Return points of the input, confidences, probabilities and facings as `methods.predictors.OneWayPredictor` does.

        Both ways of each image are computed, as the facing is looked for at the landmarks of both. Points are made of them
        before those of the mirror image are turned back.
        """
        number, pair = image_N3SS.shape[0], torch.cat([image_N3SS, image_N3SS.flip(-1)])
        cells, *values = self.inference.decode(*self.inference.maps(pair / 255))
        landmarks = _in_input(cells)
        around = torch.cat([landmarks[:number], self._turned_back(landmarks[number:])], dim=1)
        is_turned = (facing := rule(image_N3SS, box_N4, around)) < 0
        xy, *values = self._made(landmarks, *values)
        confidence, probability = (torch.where(is_turned[:, None], value[number:], value[:number]) for value in values)
        chosen = torch.where(is_turned[:, None, None], self._turned_back(xy[number:]), xy[:number])
        return chosen, confidence, probability, facing

    def _turned_back(self, xy: Tensor) -> Tensor:
        return torch.stack([self.size - 1 - xy[..., 0], xy[..., 1]], dim=-1)

    def _made(self, xy: Tensor, confidence: Tensor, probability: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points of landmarks in the input, with their confidences and probabilities."""
        if self.points is None:
            return xy, confidence, probability
        points: tuple[Tensor, Tensor, Tensor] = self.points(xy, confidence, probability, self.size)
        return points

    def _maps(self, image_N3SS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what `LandmarkInference.maps` does, with the network once in the graph, which halves its size."""
        if not self.inference.flip:
            return self.inference.maps(image_N3SS)
        both = self.inference.network(torch.cat([image_N3SS, image_N3SS.flip(-1)])).float()
        number = image_N3SS.shape[0]  # `len` would fix it in a trace
        return both[:number], both[number:]


def _in_input(cells: Tensor) -> Tensor:
    return cells * coordinates.STRIDE + (coordinates.STRIDE - 1) / 2


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
    any_length = torch.export.Dim.DYNAMIC
    examples: tuple[Tensor, ...] = torch.zeros((2, 37, 53, 3), dtype=torch.uint8), torch.scalar_tensor(0.5)
    shapes: tuple[dict[int, object] | None, ...] = {0: any_length, 1: any_length, 2: any_length}, None
    if graph.facing is not None:
        examples, shapes = (*examples, torch.full((3, 4), torch.nan)), (*shapes, {0: any_length})
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        graph(*examples)
        return torch.export.export(graph, examples, dynamic_shapes=shapes, strict=False)
