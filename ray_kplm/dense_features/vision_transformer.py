"""Vision transformers as dense features, through the package transformers (extra `semantic`)."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from ray_kplm.dense_features.feature_map import normalise
from ray_kplm.errors import ConfigError
from ray_kplm.keypoints.learned import import_extra, unusable_extra

_INPUT_SIZE = 224
"""Side of the input of a model that names none, pixels."""


class VisionTransformer:
    """The patch tokens of a frozen vision transformer as `DenseFeatures`, of unit norm at every patch.

    Models whose tokens are a grid of square patches: DINOv2, DINOv3 (ViT), SigLIP, CLIP, ViT. Tokens before the patches (class,
    registers) are left out. Of a model of images and text, the image part is taken.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        """Load a model.

        Args:
            source: A folder as `save_pretrained` writes it, with its preprocessor_config.json; or a name on the hub.
            device: Where the model runs.

        Raises:
            ConfigError: transformers is not installed, or the model cannot be loaded or is of another kind.
        """
        transformers = import_extra("transformers", "semantic", f"features = {source!r}")
        try:
            processor, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source)
            model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32)
        except ImportError as error:
            raise unusable_extra(f"features = {source!r}", error) from None
        except Exception as error:  # the hub's client raises errors of its own; transformers OSError and ValueError
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"features = {source!r}: not hog or aliked, and neither a folder with a model and its preprocessor_config.json "
                f"nor a model that the hub provides ({reason[:160]})"
            ) from None
        self._model = getattr(model, "vision_model", model).eval().requires_grad_(False).to(device)
        self._patch = _patch_size(self._model.config, source)
        self._device = device
        self.input_size = _input_size(processor, self._model.config, self._patch)
        self._mean, self._std = (_channels(processor, name, source, device) for name in ("image_mean", "image_std"))
        accepted = inspect.signature(self._model.forward).parameters
        self._arguments = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}
        # the other models interpolate their positions, or have rotary ones, without being asked

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the maps of images, see `DenseFeatures`. Images are resized to whole patches."""
        pixels_B3HW = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255
        height, width = (max(1, round(length / self._patch)) for length in images.shape[1:3])
        size = (height * self._patch, width * self._patch)
        if size != tuple(images.shape[1:3]):
            pixels_B3HW = interpolate(pixels_B3HW, size, mode="bilinear", antialias=True).clamp(0, 1)
        output = self._model(pixel_values=(pixels_B3HW - self._mean) / self._std, **self._arguments)
        patches_BPd = output.last_hidden_state[:, -height * width :]
        maps: NDArray[np.float32] = patches_BPd.reshape(len(images), height, width, -1).float().cpu().numpy()
        return normalise(maps)


def _patch_size(config: Any, source: str) -> int:
    """Return the side of a patch, pixels."""
    size = getattr(config, "patch_size", None)
    if not isinstance(size, int):
        raise ConfigError(
            f"features = {source!r}: {config.model_type} has no square patches; take a vision transformer such as DINOv2"
        )
    return size


def _input_size(processor: dict[str, Any], config: Any, patch: int) -> int:
    """Return the side of the square that the model was trained on, rounded to whole patches, pixels."""
    crop = processor.get("crop_size") if processor.get("do_center_crop", True) else None
    size: Any = crop or processor.get("size") or getattr(config, "image_size", _INPUT_SIZE)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or _INPUT_SIZE
    return max(1, round(int(size) / patch)) * patch


def _channels(processor: dict[str, Any], name: str, source: str, device: torch.device) -> torch.Tensor:
    """Return the processor's mean or standard deviation of the colour channels: (3, 1, 1)."""
    values = processor.get(name)
    if not isinstance(values, list) or len(values) != 3:
        raise ConfigError(f"features = {source!r}: its preprocessor_config.json has no {name} of three colour channels")
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
