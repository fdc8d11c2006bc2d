"""Pictures are cut and drawn where they should be."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ray_kplm.report import pictures


def opened(uri):
    kind, content = uri.split(",", 1)
    assert kind in ("data:image/jpeg;base64", "data:image/png;base64")
    return np.array(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def spotted(height, width, x, y, radius=3):
    image = np.zeros((height, width, 3), np.uint8)
    rows, columns = np.indices((height, width))
    image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 255
    return image


def centre(grey):
    """The centre of brightness (x, y), pixel centres at integers."""
    rows, columns = np.indices(grey.shape)
    return np.array([(columns * grey).sum(), (rows * grey).sum()]) / grey.sum()


def test_points_lie_on_the_thumbnail_where_they_lay_on_the_image():
    made = pictures.thumbnail(spotted(200, 300, 210, 60, 6), 100)
    image = opened(made.uri)[..., 0].astype(float)
    assert (made.width, made.height) == (100, 67)
    [point] = made.points(np.array([[210.0, 60.0]]))
    np.testing.assert_allclose(
        point, centre(np.where(image > 60, image, 0)) + 0.5, atol=0.3
    )  # from the border, not a centre


def test_small_images_are_not_enlarged():
    made = pictures.thumbnail(spotted(20, 30, 5, 5), 100)
    assert (made.width, made.height, made.scale) == (30, 20, 1.0)


@pytest.mark.parametrize("reach", [8.0, 30.0])  # enlarged, shrunk
def test_a_patch_has_its_point_in_the_middle(reach):
    cut = pictures.patch(spotted(100, 120, 70, 40), np.array([70.0, 40.0]), reach, 41)
    np.testing.assert_allclose(centre(cut[..., 0].astype(float)), [20, 20], atol=0.5)


def test_a_patch_at_the_border_is_filled():
    image = np.full((50, 50, 3), 200, np.uint8)
    assert pictures.patch(image, np.array([0.0, 49.0]), 20, 16).min() == 200


def test_a_montage_has_its_patches_in_rows():
    patches = [np.full((10, 10, 3), value, np.uint8) for value in (0, 80, 160, 240, 40)]
    made = pictures.montage(patches, columns=3)
    sheet = opened(made.uri)
    assert sheet.shape[:2] == (made.height, made.width) == (22, 34)
    np.testing.assert_allclose(sheet[5, [5, 17, 29], 0], [0, 80, 160], atol=6)
    np.testing.assert_allclose(sheet[17, [5, 17], 0], [240, 40], atol=6)


def test_a_heat_map_is_opaque_where_the_points_are():
    places = np.full((50, 2), (0.75, 0.25)) + np.random.default_rng(0).normal(0, 0.01, (50, 2))
    image = opened(pictures.heat_map(np.concatenate([places, [[np.nan, np.nan]]]), (230, 30, 60)))
    assert image.shape[:2] == (pictures.HEAT_CELLS, pictures.HEAT_CELLS)
    alpha = image[..., 3].astype(float)
    np.testing.assert_allclose(centre(alpha), [0.75 * 48 - 0.5, 0.25 * 48 - 0.5], atol=0.7)
    assert alpha.max() > 200
    assert alpha[40, 5] == 0


def test_an_empty_heat_map_is_transparent():
    assert opened(pictures.heat_map(np.full((3, 2), np.nan), (255, 0, 0)))[..., 3].max() == 0
