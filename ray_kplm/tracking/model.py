"""The landmark detector as an MLflow model that needs neither Ray nor the run directory.

    model = mlflow.pyfunc.load_model("models:/m-...")   # or runs:/RUN_ID/landmarks
    model.predict(images)["xy"]                         # uint8 (N, H, W, 3) -> float32 (N, K, 2), pixels of the images
    model.get_raw_model().names                         # of the K points
    model.get_raw_model().predict(["photo.jpg"])        # the LandmarkDetector: paths, encoded bytes, any sizes, boxes

The model holds weights, channels and configuration as files and no pickles; its code is the installed package `ray-kplm`.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.detectors.stored import detector_fingerprint, export
from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.channels import CHANNELS
from ray_kplm.points.stored import read_point_set
from ray_kplm.run import Run
from ray_kplm.storage import Folder, copy_file
from ray_kplm.tracking.spool import FACTS

_EXAMPLE = "example.npy"
_NAME = "landmarks"
_CORE = (
    "torch", "numpy", "opencv-python-headless", "pillow", "pyarrow", "pyyaml", "onnxruntime", "psutil", "shtab",
)  # fmt: skip
"""What `ray-kplm` itself requires, without its extras."""


class ImageModel:
    """What `mlflow.pyfunc.load_model` wraps: arrays of images in, arrays of landmarks out."""

    def __init__(self, detector: LandmarkDetector) -> None:
        self._detector = detector

    def predict(
        self, images: NDArray[np.uint8], params: dict[str, Any] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Find the landmarks of images.

        Args:
            images: uint8 (N, H, W, 3) RGB.
            params: not used; MLflow passes it.

        Returns:
            `xy`: (N, K, 2), pixels of the images, (x, y); `confidence`: (N, K), the peaks of the heatmaps.
        """
        found, landmarks = self._detector.predict(list(images)), self._detector.landmarks
        return {
            "xy": np.array([one.xy for one in found], np.float32).reshape(-1, landmarks, 2),
            "confidence": np.array([one.confidence for one in found], np.float32).reshape(-1, landmarks),
        }

    def get_raw_model(self) -> LandmarkDetector:
        """Return the detector, which also takes paths, encoded images and boxes."""
        return self._detector


def _load_pyfunc(path: str) -> ImageModel:
    """Load the model from its folder of data; MLflow calls this by its name."""
    return ImageModel(LandmarkDetector.load(path))


def export_model(run: Run, step: int, folder: Folder) -> None:
    """Write all that `build_model` needs into a folder: the detector with the points that outputs have by default.

    Args:
        run: a finished run.
        step: the global iteration.
        folder: where to write.
    """
    export(run, folder)
    buffer = io.BytesIO()
    np.save(buffer, example_images(run.config.network.image_size))
    folder.write_bytes(_EXAMPLE, buffer.getvalue())
    fingerprint = detector_fingerprint(run)
    folder.write_json(FACTS, {"name": _NAME, "fingerprint": fingerprint, "step": step})


def example_images(size: int) -> NDArray[np.uint8]:
    """Return two drawn images, uint8 (2, size, size, 3) RGB, as the input example of a model: no image of the dataset leaves.

    A bright ellipse with two dark dots on a background of soft colours; the second image is the mirror image of the first.
    """
    y, x = np.mgrid[0:size, 0:size] / size
    image = 80 + 60 * np.stack([x, y, 1 - x], axis=-1)
    image[((x - 0.45) / 0.28) ** 2 + ((y - 0.5) / 0.36) ** 2 <= 1] = (225, 190, 150)
    for centre in (0.35, 0.55):
        image[(x - centre) ** 2 + (y - 0.42) ** 2 <= 0.05**2] = (40, 30, 30)
    first = image.astype(np.uint8)
    return np.stack([first, first[:, ::-1]])


def build_model(exported: Folder, target: Path, run_id: str, model_id: str) -> None:
    """Build an MLflow model folder. Signature, example and requirements are given, so that MLflow infers nothing.

    Args:
        exported: what `export_model` wrote.
        target: the new folder.
        run_id: of the MLflow run.
        model_id: of the logged model.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    data = target.parent / "detector"
    for name in exported.walk():
        if name not in (FACTS, _EXAMPLE):
            copy_file(exported, Folder.at(data), name)
    examples = np.load(io.BytesIO(exported.read_bytes(_EXAMPLE)))
    made = read_point_set(exported)
    landmarks = exported.read_json(CHANNELS)["channels"] if made is None else len(made)
    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    xy = TensorSpec(np.dtype(np.float32), (-1, landmarks, 2), "xy")
    confidence = TensorSpec(np.dtype(np.float32), (-1, landmarks), "confidence")
    mlflow.pyfunc.save_model(
        target,
        loader_module=__name__,
        data_path=str(data),
        mlflow_model=Model(artifact_path=_NAME, run_id=run_id, model_uuid=model_id, model_id=model_id),
        signature=ModelSignature(Schema([images]), Schema([xy, confidence])),
        input_example=examples,
        pip_requirements=list(model_requirements()),
    )


def model_requirements() -> Iterable[str]:
    """Yield the requirements of the model in the versions that are installed here."""
    for name in ("ray-kplm", *_CORE, "mlflow"):
        try:
            yield f"{name}=={importlib.metadata.version(name).split('+')[0]}"
        except importlib.metadata.PackageNotFoundError:  # the package runs from a checkout
            yield name


def installed_packages() -> str:
    """Return all packages installed here with their versions, in the format of `pip freeze`."""
    versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "".join(f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower))
