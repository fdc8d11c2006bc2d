"""`augment.extra`: the user's own transforms, whose effect on places reaches the labels."""

from __future__ import annotations

import albumentations as A
import numpy as np
import pytest

from ray_kplm.config import AugmentConfig, load_config
from ray_kplm.errors import ConfigError
from ray_kplm.imaging import coordinates
from ray_kplm.imaging.augment import Augmenter, View
from ray_kplm.imaging.extra_file import content_hash
from ray_kplm.imaging.extra_transforms import ExtraTransforms, check_extra
from ray_kplm.imaging.view_parameters import draw_views
from ray_kplm.imaging.warp import displace

SIZE = 128
PLAIN = {"brightness": (1, 1), "contrast": (1, 1), "colour_share": 0, "blur_share": 0, "noise_share": 0}
STILL = {"scale": (1, 1), "translate": 0, "rotate": 0}


def dot(x: float, y: float) -> np.ndarray:
    rows, columns = np.indices((SIZE, SIZE))
    return np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8))[..., None].repeat(3, 2).astype(np.uint8)


def centre(picture: np.ndarray) -> np.ndarray:
    weight = picture[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def place(view: View, xy: np.ndarray) -> np.ndarray:
    at = coordinates.apply(view.crop_to_view.astype(float), xy)
    return displace(at[None, None], view.shifts[None], SIZE)[0, 0]


@pytest.fixture
def saved(tmp_path):
    """Writes transforms to a file and returns its path."""

    def save(*transforms: A.BasicTransform, name: str = "extra.yaml", **options) -> str:
        A.save(A.Compose(list(transforms), **options), tmp_path / name, data_format=name.rpartition(".")[2])
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("base", [{}, {"warp": 0.05, **STILL}, {"rotate": 30.0, "translate": 0.05}])
@pytest.mark.parametrize(
    ("transform", "slack"),
    [
        (A.Affine(rotate=(10, 20), translate_px=(3, 9), shear=(5, 8), p=1), 0.3),
        (A.RandomRotate90(p=1), 0.3),
        (A.Perspective(scale=(0.05, 0.1), p=1), 0.5),
        (A.ElasticTransform(alpha=60, sigma=12, p=1), 0.8),
        (A.GridDistortion(num_steps=4, distort_limit=0.2, p=1), 0.8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_points_follow_the_picture(saved, base, transform, slack):
    augment = Augmenter(AugmentConfig(**(STILL | PLAIN | base), extra=saved(transform)), SIZE)
    off, moves = [], []
    for seed in range(12):
        xy = np.random.default_rng(seed).uniform(48, 80, 2)
        view = augment(dot(*xy), seed, seed % 2 == 1)
        off.append(np.linalg.norm(place(view, xy) - centre(view.picture)))
        moves.append(np.linalg.norm(place(view, xy) - xy))
    assert max(off) < slack + (0.6 if "warp" in base else 0)  # a dot is bent a little
    assert max(moves) > 2


def test_a_view_depends_on_its_seed_alone_and_each_transform_has_its_own_numbers(saved):
    path = saved(A.Rotate(limit=(-45, 45), p=1), A.Rotate(limit=(-45, 45), p=1), name="twice.json")
    angles = []
    for seed in range(200):
        made = ExtraTransforms(path, SIZE)
        made(dot(50, 60), np.zeros((2, 2, 2), np.float32), seed)
        angles.append([node.py_random.random() for node in made._nodes[1:]])
    first, second = np.array(angles).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25
    config = AugmentConfig(extra=path, warp=0.05)
    batch = Augmenter(config, SIZE).views(draw_views(config, np.arange(6), np.zeros(6, bool)), [dot(50, 60)] * 6)
    for seed in (4, 1):
        view = Augmenter(config, SIZE)(dot(50, 60), seed, False)
        np.testing.assert_array_equal(view.picture, batch.picture[seed])
        np.testing.assert_array_equal(view.shifts, batch.shifts[seed])


def test_noise_comes_after_the_users_transforms(saved):
    """A hole that a transform cuts has the view's noise."""
    hole = saved(
        A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(60, 60), hole_width_range=(60, 60), fill=90, p=1)
    )
    config = AugmentConfig(**STILL, **(PLAIN | {"noise_share": 1, "noise": 0.05}), extra=hole)
    parameters = draw_views(config, np.arange(20), np.zeros(20, bool))
    strongest = int(parameters.noise.argmax())
    picture = Augmenter(config, SIZE)(np.full((SIZE, SIZE, 3), 200, np.uint8), strongest, False).picture
    covered = picture[picture < 145].astype(float)
    assert len(covered) > 3000
    assert covered.std() > 3


@pytest.mark.parametrize("transform", [A.HorizontalFlip(), A.VerticalFlip(), A.Transpose(), A.D4()])
def test_what_mirrors_is_refused(saved, transform):
    with pytest.raises(ConfigError, match="mirrors views, which swaps left and right"):
        check_extra(saved(transform), SIZE)


def test_what_cannot_be_used_is_refused_before_the_run(saved, tmp_path):
    for transform, text in (
        (A.CenterCrop(64, 64), "the size must stay"),
        (A.MaskDropout(), "MaskDropout"),
        (A.OneOf([A.Blur(), A.RandomCrop(32, 32)]), "the size must stay"),
    ):
        with pytest.raises(ConfigError, match=text) as raised:
            check_extra(saved(transform), SIZE)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"augment.extra = .*none.yaml': cannot be read"):
        check_extra(str(tmp_path / "none.yaml"), SIZE)
    for number, text in enumerate(("", "[1, 2]", "{a: b", "transform: {__class_fullname__: os.system, p: 1}")):
        (tmp_path / f"{number}.yaml").write_text(text)
        with pytest.raises(ConfigError, match="no pipeline that") as raised:
            check_extra(str(tmp_path / f"{number}.yaml"), SIZE)
        assert "\n" not in str(raised.value)
    (tmp_path / "one.json").write_text("{}")
    A.save(A.Blur(), tmp_path / "one.json")
    with pytest.raises(ConfigError, match=r"holds a Blur; it must be an albumentations.Compose"):
        check_extra(str(tmp_path / "one.json"), SIZE)
    with pytest.raises(ConfigError, match="must end with"):
        load_config(None, ["augment.extra=mine.txt"])


def test_usual_transforms_pass_the_check(saved):
    check_extra(saved(A.OneOf([A.CLAHE(), A.ImageCompression()]), A.CoarseDropout(), A.ElasticTransform(), p=0.5), SIZE)


def test_the_hash_is_of_the_content(saved):
    here, copy = saved(A.CLAHE(p=0.5)), saved(A.CLAHE(p=0.5), name="copy.yaml")
    assert content_hash(here) == content_hash(copy) != content_hash(saved(A.CLAHE(p=0.6), name="other.yaml"))
