"""The choice of the template from a round's keypoints, without Ray."""

import numpy as np
import pyarrow as pa
import pytest

from ray_kplm.config import load_config
from ray_kplm.correspondence.features import keypoints_table
from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.errors import ConfigError
from ray_kplm.schemas import IMAGES
from ray_kplm.steps.align import Aligning, _choose
from ray_kplm.storage import Folder

PART, SIDE = "part-00000.parquet", 64
SHAPE = np.array([[20, 20], [44, 18], [30, 34], [22, 50], [46, 48], [33, 60]], float)
IMAGE_COUNT, CLUTTERED, FEW = 30, 4, 7


def made_points() -> list[np.ndarray]:
    """Each image has the shape, moved; some points of clutter come with every one."""
    rng = np.random.default_rng(0)
    points = []
    for number in range(IMAGE_COUNT):
        shape = SHAPE + rng.uniform(-3, 3, 2) + rng.normal(0, 0.4, SHAPE.shape)
        clutter = rng.uniform(4, 60, (9 if number == CLUTTERED else 3, 2))
        far = np.linalg.norm(clutter[:, None] - shape, axis=-1).min(axis=1) > 8
        points.append(np.concatenate([clutter[far], shape]) if number != FEW else shape[:2])
    return points


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Folder, Folder]:
    """Images and keypoints in their crops, which have the input's size."""
    root = Folder.at(tmp_path_factory.mktemp("align"))
    ids, points = [f"image/{n}" for n in range(IMAGE_COUNT)], made_points()
    rows = [
        {
            "image_id": i,
            "image": b"",
            "width": SIDE,
            "height": SIDE,
            "box": None,
            "crop_to_source": [1.0, 0, 0, 0, 1, 0],
        }
        for i in ids
    ]
    (root / "images").write_table(PART, pa.Table.from_pylist(rows, schema=IMAGES))
    counts, flat = np.array([len(p) for p in points]), np.concatenate(points)
    (root / "points").write_table(PART, keypoints_table(ids, counts, flat, np.ones(len(flat))))
    return root / "images", root / "points"


def choose(folders: tuple[Folder, Folder], *overrides: str) -> dict:
    images, points = folders
    config = load_config(None, ["method.kind=template", f"network.image_size={SIDE}", "network.depth=2", *overrides])
    return _choose(Aligning(config, images, points, images), full_selection([PART], [IMAGE_COUNT]))


def is_shape(xy: list, image_id: str) -> bool:
    """Whether these are the image's points of the shape, all and only."""
    own = made_points()[int(image_id.removeprefix("image/"))][-len(SHAPE) :]
    return len(xy) == len(own) and np.allclose(xy, own, atol=1e-4)


@pytest.mark.parametrize("named", ["", f"image/{CLUTTERED}"])
def test_a_template_keeps_the_configured_number_of_points_that_images_share(folders, named):
    chosen = choose(folders, "method.landmarks=6", f"template.image={named}")
    assert chosen["image_id"] == named or not named
    assert is_shape(chosen["xy"], chosen["image_id"])
    assert 0.75 < chosen["score"] <= 1
    assert len(choose(folders, "method.landmarks=4", f"template.image={named}")["xy"]) == 4


def test_an_image_with_fewer_points_than_configured_gives_them_all(folders):
    has = len(made_points()[CLUTTERED])
    chosen = choose(folders, "method.landmarks=30", f"template.image=image/{CLUTTERED}")
    assert 6 < len(chosen["xy"]) == has < 30


@pytest.mark.parametrize(
    ("name", "message"), [(f"image/{FEW}", "has 2 keypoints, and a template needs 3"), ("nobody", "no such image")]
)
def test_a_named_image_that_is_no_template_is_refused(folders, name, message):
    with pytest.raises(ConfigError, match=rf"^template\.image = '{name}': {message}"):
        choose(folders, f"template.image={name}")
