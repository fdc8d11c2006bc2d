"""Vision transformers of the published classes, small and random, saved to a folder as `save_pretrained` does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.dense_features import build_features, describe_images
from ray_kplm.errors import ConfigError

CPU = torch.device("cpu")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def saved(folder: Path, kind: str) -> str:
    """Save a small model of a kind with the configuration of its image processor; return the folder."""
    transformers = pytest.importorskip("transformers", reason="needs the extra semantic")
    torch.manual_seed(0)
    vision = {**SMALL, "image_size": 56, "patch_size": 14}
    match kind:
        case "dinov2":
            model = transformers.Dinov2Model(transformers.Dinov2Config(**vision, mlp_ratio=2))
        case "dinov2_registers":
            config = transformers.Dinov2WithRegistersConfig(**vision, mlp_ratio=2, num_register_tokens=4)
            model = transformers.Dinov2WithRegistersModel(config)
        case "dinov3":
            model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**vision, num_register_tokens=4))
        case "siglip_vision":
            model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision))
        case "siglip":
            text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8}
            model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        case "resnet":
            sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
            model = transformers.ResNetModel(transformers.ResNetConfig(**sizes))
    model.save_pretrained(folder)
    processor = {"image_mean": MEAN, "image_std": STD, "size": {"height": 56, "width": 56}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def features(source: str):
    return build_features(load_config(None, [f"features={source}"]), CPU)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_registers", "dinov3", "siglip_vision", "siglip"])
def test_the_map_is_the_grid_of_patches_at_any_size(tmp_path, kind):
    model = features(saved(tmp_path, kind))
    assert model.input_size == 56
    images = np.random.default_rng(0).integers(0, 255, (2, 70, 42, 3), dtype=np.uint8)
    maps = model(images)
    assert maps.shape == (2, 5, 3, 32)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(maps, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(model(images[1:])[0], maps[1], atol=1e-5)
    assert model(np.zeros((1, 30, 40, 3), np.uint8)).shape == (1, 2, 3, 32)  # resized to whole patches
    assert describe_images(model, list(images)).shape == (2, 4 * 4 * 32)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_registers", "dinov3", "siglip"])
def test_the_map_is_the_models_own_patch_tokens_of_the_normalised_image(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    source = saved(tmp_path, kind)
    image = np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    network = transformers.AutoModel.from_pretrained(source).eval()
    pixels = torch.from_numpy(((image / 255 - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        tokens = getattr(network, "vision_model", network)(pixel_values=pixels).last_hidden_state[0].numpy()
    patches = tokens[{"dinov2": 1, "dinov2_registers": 5, "dinov3": 5, "siglip": 0}[kind] :]
    expected = patches / np.linalg.norm(patches, axis=1, keepdims=True)
    np.testing.assert_allclose(features(source)(image[None]).reshape(16, 32), expected, atol=1e-5)


def test_a_change_of_a_patch_shows_most_in_its_cell(tmp_path):
    """So rows and columns of the map are those of the image."""
    model = features(saved(tmp_path, "dinov3"))
    images = np.full((2, 56, 84, 3), 128, np.uint8)
    images[1, 14:28, 56:70] = np.random.default_rng(0).integers(0, 255, (14, 14, 3))
    before, after = model(images)
    change = np.linalg.norm(after - before, axis=-1)
    assert np.unravel_index(change.argmax(), change.shape) == (1, 4)


def test_the_size_of_a_centre_crop_comes_before_that_of_the_resize(tmp_path):
    source = saved(tmp_path, "dinov2")
    processor = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": 64}, "crop_size": {"height": 45}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    assert features(source).input_size == 42


def test_what_is_no_vision_transformer_is_an_error_of_one_line(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="needs the extra semantic")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    resnet = saved(tmp_path / "resnet", "resnet")
    bare = saved(tmp_path / "bare", "dinov2")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    grey = saved(tmp_path / "grey", "dinov2")
    (tmp_path / "grey" / "preprocessor_config.json").write_text("{}")
    for source, reason in (
        (str(tmp_path), "neither a folder with a model"),
        ("dino v2", "neither a folder with a model"),
        (bare, "preprocessor_config.json"),
        (grey, "no image_mean"),
        (resnet, "no square patches"),
    ):
        with pytest.raises(ConfigError, match=r"^features = ") as caught:
            features(source)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_that_transformers_cannot_import_is_not_taken_for_missing_weights(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="needs the extra semantic")
    source = saved(tmp_path, "dinov2")

    def fail(*args, **kwargs):
        raise ModuleNotFoundError("Could not import module 'Dinov2Model'.\nAre its requirements met?")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", fail)
    with pytest.raises(ConfigError, match=r"^features = .*cannot import the model \(Could .*torchvision") as caught:
        features(source)
    assert "\n" not in str(caught.value)


def test_the_error_of_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"^features = 'facebook/dinov2-base': .*pip install 'ray-kplm\[semantic\]'"):
        features("dinov2")
