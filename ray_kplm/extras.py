"""Which extra of the distribution brings a package that is not installed."""

from __future__ import annotations

import importlib.util

from ray_kplm.errors import ConfigError

TRAIN = "cpu, gpu or gpu-cu12"
"""The extras that bring all that training needs: `train`, and a build of Faiss."""
EXTRAS = dict.fromkeys(
    (
        "ray", "faiss", "mlflow", "albumentations", "jinja2", "matplotlib", "networkx", "scipy", "sklearn", "sqlalchemy",
        "threadpoolctl",
    ),
    TRAIN,
) | {
    "av": "video",
    "botocore": "s3",
    "cdflib": "human36m",
    "fastapi": "serve",
    "grpc_reflection": "serve",
    "h5py": "human36m",
    "huggingface_hub": "hub",
    "kornia": "aliked",
    "multipart": "serve",
    "ndx_pose": "sleap",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "optuna": "sweep",
    "pandas": "dlc",
    "pillow_heif": "heif",
    "pycocotools": "coco",
    "python_multipart": "serve",
    "safetensors": "hub",
    "sleap_io": "sleap",
    "starlette": "serve",
    "tables": "dlc",
    "transformers": "superpoint",
    "uvicorn": "serve",
}  # fmt: skip
"""Module -> extra, for modules that the core of the distribution does not bring."""


def check_installed(*modules: str) -> None:
    """Raise ConfigError if one of these modules is not installed, without importing them."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise missing(name)


def missing(module: str) -> ConfigError:
    """Return the error of a module that is not installed: one line with the extra that brings it."""
    extra = EXTRAS.get(module.partition(".")[0])
    if extra is None:
        return ConfigError(f"the package {module} is not installed: install ray-kplm again with its dependencies")
    one = extra.partition(",")[0]
    several = f"one of the extras {extra}" if one != extra else f"the extra {extra}"
    return ConfigError(f'the package {module} is not installed: {several} brings it, as pip install "ray-kplm[{one}]"')
