"""Frozen descriptors beside learnt ones in an extraction: one projection for all processes, and for the predictor. No Ray."""

from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from ray_kplm.config import load_config
from ray_kplm.correspondence.assignment import on_grid
from ray_kplm.correspondence.features import read_features
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.errors import CollapseError
from ray_kplm.methods import build_method
from ray_kplm.methods.cluster_predictor import ClusterPredictorFactory
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.frozen_descriptors import PROJECTION
from ray_kplm.methods.inputs import make_inputs, worker_placement
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.network.hourglass import KeypointNetwork
from ray_kplm.parts import Pool, ThisProcess
from ray_kplm.schemas import FACINGS
from ray_kplm.steps.extract import calibrate
from ray_kplm.steps.extract_part import Extraction, ExtractPart
from ray_kplm.storage import Folder

SIDE, LEARNT, HOG = 64, 8, 9
PARTS = [f"part-{i:05d}.parquet" for i in range(3)]
IMAGES = full_selection(PARTS, [4, 4, 4])
CONFIG = load_config(
    None,
    [f"network.image_size={SIDE}", "network.width=16", "network.depth=2", "network.groups=4",
     f"network.descriptor_dim={LEARNT}", "method.landmarks=5", "compute.precision=fp32", "compute.threads=1",
     "compute.batch_images=3"],
)  # fmt: skip
"""With HOG, which needs no weights. A method never blends it; here the extraction is asked to."""


@pytest.fixture
def extraction(tmp_path):
    """An extraction of 12 images in three parts by a network of random weights, with a share of 0.4 of HOG."""
    rng, images, network = np.random.default_rng(0), Folder.at(tmp_path / "images"), Folder.at(tmp_path / "000/train")
    for part in PARTS:
        pictures = [cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (SIDE, SIDE)) for _ in range(4)]
        encoded = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
        columns = {
            "image_id": [f"{part}/{i}" for i in range(4)],
            "image": encoded,
            "width": [SIDE] * 4,
            "height": [SIDE] * 4,
        }
        images.write_table(part, pa.table(columns | {"box": pa.nulls(4, pa.list_(pa.float32()))}))
    torch.manual_seed(0)
    with network.writing(NETWORK) as stream:
        torch.save({"network": KeypointNetwork(CONFIG.network).state_dict()}, stream)
    features = Folder.at(tmp_path / "000/features")
    return Extraction(build_method(CONFIG), 0, network, images, IMAGES, 3.0, features, frozen_share=0.4)


def calibrated(work: Extraction) -> Extraction:
    return calibrate(work, ThisProcess(), Pool(1))


def extracted(work: Extraction):
    worker = ExtractPart(calibrated(work))
    for part, rows in zip(IMAGES.parts, IMAGES.rows, strict=True):
        worker(part, rows)
    return [read_features(work.features, part) for part in PARTS]


def test_blended_descriptors_are_wider_of_unit_norm_and_begin_with_the_learnt_ones(extraction, tmp_path):
    blended = extracted(extraction)
    learnt = extracted(replace(extraction, features=Folder.at(tmp_path / "learnt"), frozen_share=0.0))
    for one, other in zip(blended, learnt, strict=True):
        np.testing.assert_array_equal(one.xy, other.xy)
        for name in ("descriptors", "descriptors_flipped"):
            wide, narrow = (getattr(features, name).astype(np.float32) for features in (one, other))
            assert wide.shape == (len(narrow), LEARNT + HOG)
            np.testing.assert_allclose(np.linalg.norm(wide, axis=1), 1, atol=2e-3)
            np.testing.assert_allclose(wide[:, :LEARNT], np.sqrt(0.6) * narrow, atol=1e-3)


def test_the_projection_is_fitted_once_and_is_that_of_the_sample(extraction, tmp_path):
    folder = extraction.network.parent
    first = extracted(extraction)
    kept = folder.read_bytes(PROJECTION)
    others = replace(extraction, features=Folder.at(tmp_path / "again"))
    for one, two in zip(first, extracted(others), strict=True):
        np.testing.assert_array_equal(one.descriptors, two.descriptors)
    assert not (others.features / "calibration/frozen").exists()  # the projection was there
    folder.delete_file(PROJECTION)
    calibrated(extraction)  # fitted again to the same sample
    assert folder.read_bytes(PROJECTION) == kept


def test_nothing_is_fitted_where_nothing_is_blended(extraction):
    calibrated(replace(extraction, frozen_share=0.0))
    assert not extraction.network.parent.is_file(PROJECTION)


def test_an_image_that_faces_the_other_way_is_described_in_its_mirror_image(extraction, tmp_path):
    """By the network and by the frozen model: its descriptors are those of the mirror image in `descriptors_flipped`."""
    facings = Folder.at(tmp_path / "facing")
    for part in PARTS:
        ids = [f"{part}/{i}" for i in range(4)]
        facings.write_table(part, pa.table([ids, pa.array([-1.0] * 4, pa.float32())], schema=FACINGS))
    known = Folder.at(tmp_path / "known")
    for part in PARTS:
        points = [[[20.0, 30.0], [40.0, 10.0]]] * 4
        known.write_table(part, pa.table({"image_id": [f"{part}/{i}" for i in range(4)], "xy": points}))
    config = replace(CONFIG, detection=replace(CONFIG.detection, threshold="fixed", fixed_threshold=1.0))
    extracted(extraction)  # fits the projection
    work = replace(extraction, method=build_method(config), known=known, features=Folder.at(tmp_path / "plain"))
    turned = replace(work, facings=Facings(facings), features=Folder.at(tmp_path / "turned"))
    for one, other in zip(extracted(work), extracted(turned), strict=True):
        np.testing.assert_allclose(one.xy, other.xy, atol=1e-3)
        np.testing.assert_allclose(one.descriptors, other.descriptors_flipped, atol=5e-3)
        np.testing.assert_allclose(one.descriptors_flipped, other.descriptors, atol=5e-3)


def test_the_predictor_gives_keypoints_the_landmarks_that_clustering_gave_them(extraction, tmp_path):
    features = extracted(extraction)
    descriptors = np.concatenate([part.descriptors for part in features]).astype(np.float32)
    centroids = on_grid(descriptors[np.random.default_rng(1).permutation(len(descriptors))[:5]])
    shard = DescriptorShard(extraction.features, PARTS, memory_bytes=2**30, seed=0)
    shard.begin()
    shard.filter_landmarks(centroids)
    labels = Folder.at(tmp_path / "labels")
    shard.label(centroids, 5, labels)
    make = ClusterPredictorFactory(CONFIG, extraction.network, centroids, calibrated(extraction).threshold)
    predictor = make(worker_placement(CONFIG.compute))
    for part, rows in zip(IMAGES.parts, IMAGES.rows, strict=True):
        table = labels.read_table(part)
        images = np.concatenate([batch for batch, *_ in make_inputs(extraction.images.read_table(part), rows, CONFIG)])
        xy = predictor(images).xy
        expected = np.full_like(xy, np.nan)
        for image, (points, landmarks) in enumerate(
            zip(table["xy"].to_pylist(), table["landmark"].to_pylist(), strict=True)
        ):
            expected[image, landmarks] = points
        assert np.isfinite(expected).any()
        np.testing.assert_allclose(xy, expected, atol=1e-3)
    assert predictor.observe(images).separation.shape == (4, 5)


def test_a_sample_without_keypoints_is_refused(extraction):
    config = replace(CONFIG, detection=replace(CONFIG.detection, threshold="fixed", fixed_threshold=1.0))
    with pytest.raises(CollapseError, match=r"^0 keypoints .*detection\.threshold"):
        calibrated(replace(extraction, method=build_method(config)))
