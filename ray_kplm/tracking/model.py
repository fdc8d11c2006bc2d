"""The landmark detector as an MLflow model that needs neither Ray nor the run directory.

    model = mlflow.pyfunc.load_model("models:/m-...")   # or runs:/RUN_ID/landmarks
    model.predict(images)["xy"]                         # uint8 (N, H, W, 3) -> float32 (N, K, 2), pixels of the images
    model.get_raw_model().predict(["photo.jpg"])        # the LandmarkDetector: paths, encoded bytes, any sizes, boxes

The model holds weights, channels and configuration as files, nothing pickled; the code is the installed package `ray-kplm`.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_kplm.landmark_detector import LandmarkDetector, export
from ray_kplm.run import Run
from ray_kplm.storage import Folder, copy_file

FACTS = "model.json"
_EXAMPLE = "example.npy"
_NAME = "landmarks"
_NEEDED = ("ray-kplm", "torch", "numpy", "opencv-python-headless", "pillow", "pyarrow", "pyyaml", "mlflow")


class ImageModel:
    """What `mlflow.pyfunc.load_model` calls."""

    def __init__(self, detector: LandmarkDetector) -> None:
        self._detector = detector

    def predict(
        self, images: NDArray[np.uint8], params: dict[str, Any] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """uint8 (N, H, W, 3) RGB -> xy (N, K, 2), pixels of the images, (x, y); confidence (N, K), the heatmaps' peaks."""
        found = self._detector.predict(list(images))
        return {"xy": np.stack([one.xy for one in found]), "confidence": np.stack([one.confidence for one in found])}

    def get_raw_model(self) -> LandmarkDetector:
        return self._detector


def _load_pyfunc(path: str) -> ImageModel:
    """MLflow's entry: the model of the folder of `export`."""
    return ImageModel(LandmarkDetector.load(path))


def keep(run: Run, examples: NDArray[np.uint8], step: int, folder: Folder) -> None:
    """Put into a folder all that `build` needs. examples: uint8 (N, S, S, 3), two or more, for the model's users to see."""
    export(run, folder)
    buffer = io.BytesIO()
    np.save(buffer, examples)
    folder.write_bytes(_EXAMPLE, buffer.getvalue())
    fingerprint = run.finished("stage2")["fingerprint"]
    folder.write_json(FACTS, {"name": _NAME, "fingerprint": fingerprint, "step": step})


def build(kept: Folder, target: Path, run_id: str, model_id: str) -> None:
    """An MLflow model folder of what `keep` wrote: signature, example and requirements are given, nothing is inferred."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    data = target.parent / "detector"
    for name in kept.names():
        if name not in (FACTS, _EXAMPLE):
            copy_file(kept, Folder.at(data), name)
    examples = np.load(io.BytesIO(kept.read_bytes(_EXAMPLE)))
    landmarks = kept.read_json("channels.json")["channels"]
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
        pip_requirements=list(requirements()),
    )


def requirements() -> Iterable[str]:
    """The package and what it computes with, as installed here."""
    for name in _NEEDED:
        try:
            yield f"{name}=={importlib.metadata.version(name).split('+')[0]}"
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            yield name


def environment() -> str:
    """Everything installed here, as `pip freeze` writes it."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))
