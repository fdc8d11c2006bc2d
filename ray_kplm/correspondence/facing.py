"""Which way the object of each image faces, without annotation: synchronisation over the two-element group Z2.

An image n has a descriptor D_n and its mirror image D'_n. Images n and m face the same way if D_n is more alike to D_m than to
D'_m. The facings z_n = +1 or -1 that agree best with these comparisons of pairs are the signs of the leading eigenvector of
W_nm = s(D_n, D_m) - s(D_n, D'_m), where s is the cosine (Singer 2011, angular synchronisation). Which of the two ways is +1 is
arbitrary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NEIGHBOURS = 30
"""Comparisons that are used for each image: those with the largest |W_nm|. Chance likeness of distant pairs is left out."""
_REFITS = 8
"""Most refits of the template to the facings that it gives."""
_RIDGE = 10.0
"""Ridge of the template, relative to the mean squared norm of the differences. On cattle and the synthetic animals 3 to 30 give
nearly the same facings."""


@dataclass(frozen=True)
class MirrorEvidence:
    """How images compare to their own mirror images.

    Attributes:
        contrast: mean cosine of an image and its own mirror image, minus that of two images.
        symmetric: share of the images that are more alike to their own mirror image than to 99 % of all other images and mirror
            images. Objects seen from the front are; of those seen from the side the head is at the other end.
        kurtosis: of the projections on the direction in which images and their mirror images differ most: 1 for two ways to
            face, 1.8 for all ways from one side to the other, 3 without a preferred way.
    """

    contrast: float
    symmetric: float
    kurtosis: float

    @property
    def seen_from_the_side(self) -> bool:
        """Whether mirror images are `facing`.

        Either no image is like its mirror image; or few are, and the images face two ways. A negative contrast alone is enough:
        other images are then more alike than the mirror image, which has the same background and light.
        """
        return self.contrast < 0 or (self.symmetric < _SYMMETRIC and self.kurtosis < _TWO_WAYS)


_SYMMETRIC, _TWO_WAYS = 0.08, 2.0
"""Bounds of `symmetric` and `kurtosis` for objects seen from the side. Measured, 96 px, objects cut out by their boxes: cattle
.02, 1.8; X-rays of heads 0, 1.1; the synthetic animals .06, 1.8; and from the front: faces .11, 1.8; people .24, 3.3; the
synthetic creature .08, 2.5."""
_ALIKE = 0.01
"""Share of the other images that may be more alike to an image than a mirror image that counts as like it."""


def mirror_evidence(plain: NDArray[np.float32], mirrored: NDArray[np.float32]) -> MirrorEvidence:
    """Return the evidence for what a mirror image is.

    Args:
        plain: (N, D), descriptors of the images.
        mirrored: (N, D), descriptors of their mirror images.
    """
    a, b, images = _unit(plain), _unit(mirrored), len(plain)
    total = a.sum(axis=0)
    contrast = float((a * b).sum(axis=1).mean()) - (float(total @ total) - images) / max(images * (images - 1), 1)
    mean = (plain.mean(axis=0) + mirrored.mean(axis=0)) / 2
    a, b = _unit(plain - mean), _unit(mirrored - mean)
    own = (a * b).sum(axis=1)
    compared = np.concatenate([a @ a.T, a @ b.T], axis=1)
    compared[np.arange(images), np.arange(images)] = compared[np.arange(images), images + np.arange(images)] = -np.inf
    more_alike = (compared > own[:, None]).sum(axis=1)
    projected = (a - b) @ _leading(a - b)
    kurtosis = float((projected**4).mean() / max(float((projected**2).mean()) ** 2, 1e-24))
    return MirrorEvidence(contrast, float((more_alike < _ALIKE * 2 * (images - 1)).mean()), kurtosis)


def _leading(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the direction of the largest second moment of vectors (N, D): (D,)."""
    from scipy.sparse.linalg import svds  # not needed to predict

    first = np.random.default_rng(0).standard_normal(min(vectors.shape))
    direction: NDArray[np.float32] = svds(vectors, k=1, v0=first, return_singular_vectors="vh")[2][0]
    return direction


def synchronise(plain: NDArray[np.float32], mirrored: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Return the facings that agree best with the comparisons of all pairs.

    Args:
        plain: (N, D), descriptors of the images, their mean removed.
        mirrored: (N, D), descriptors of their mirror images.

    Returns:
        The facings, +1 or -1, (N,), and their agreement: the mean of W_nm z_n z_m relative to that of |W_nm|, 1 if all agree.
    """
    from scipy.sparse.linalg import eigsh  # not needed to predict

    a, b = _unit(plain), _unit(mirrored)
    compared = a @ a.T - a @ b.T
    compared = (compared + compared.T) / 2
    np.fill_diagonal(compared, 0)
    strongest = _strongest(compared)
    first = np.random.default_rng(0).standard_normal(len(a))  # of the iteration: the same facings in every run
    facing = np.where(eigsh(strongest, k=1, which="LA", v0=first)[1][:, 0] < 0, -1.0, 1.0)
    agreement = float((strongest * np.outer(facing, facing)).sum() / max(float(np.abs(strongest).sum()), 1e-12))
    return facing, agreement


def _strongest(compared: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the comparisons with the `_NEIGHBOURS` strongest of each image alone, normalised by the images' degrees."""
    kept = min(_NEIGHBOURS, len(compared) - 1)
    least = -np.partition(-np.abs(compared), kept - 1, axis=1)[:, kept - 1 : kept]
    strong = np.where(np.abs(compared) >= least, compared, 0).astype(np.float64)
    strong = (strong + strong.T) / 2
    degree = np.maximum(np.abs(strong).sum(axis=1), 1e-12)
    return strong / np.sqrt(np.outer(degree, degree))


@dataclass(frozen=True)
class FacingTemplate:
    """Gives the facing of any image, by a linear rule on the descriptors of an image and of its mirror image.

    Attributes:
        mean: float32 (D,), mean of both descriptors.
        direction: float32 (D,), on which the difference of the descriptors of an image and of its mirror image is projected.
        sharpness: factor from the projection on `direction` to half the log odds of the facing.
    """

    mean: NDArray[np.float32]
    direction: NDArray[np.float32]
    sharpness: float

    def half_log_odds(self, plain: NDArray[np.float32], mirrored: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return half the log odds that images face the positive way: (N,). `facings` makes facings of them.

        The projections of images of one facing are taken to be normal, with opposite means for the two facings.

        Args:
            plain: (N, D), descriptors of the images.
            mirrored: (N, D), descriptors of their mirror images.
        """
        projected = (_unit(plain - self.mean) - _unit(mirrored - self.mean)) @ self.direction
        odds: NDArray[np.float32] = (self.sharpness * projected).astype(np.float32)
        return odds


@dataclass(frozen=True)
class FittedFacing:
    """The template of a sample, and the facings of the sample's own images.

    Attributes:
        template: for any image.
        agreement: of the facings, see `synchronise`.
        half_log_odds: (N,), of each image by the rule that is fitted to the other images. An image that the synchronisation
            turned the wrong way does not confirm itself.
    """

    template: FacingTemplate
    agreement: float
    half_log_odds: NDArray[np.float32]


def fit_template(plain: NDArray[np.float32], mirrored: NDArray[np.float32]) -> FittedFacing:
    """Fit the template of one facing to a sample of images.

    The facings that the synchronisation gives are replaced by those that a ridge regression on all other images gives, until
    they stay.

    Args:
        plain: (N, D), descriptors of the images.
        mirrored: (N, D), descriptors of their mirror images.
    """
    mean = ((plain.mean(axis=0) + mirrored.mean(axis=0)) / 2).astype(np.float32)
    facing, agreement = synchronise(plain - mean, mirrored - mean)
    difference = (_unit(plain - mean) - _unit(mirrored - mean)).astype(np.float64)
    gram, images = difference @ difference.T, len(difference)
    inverse = np.linalg.inv(gram + _RIDGE * np.trace(gram) / images * np.eye(images))
    hat = gram @ inverse
    leverage = np.diag(hat)
    for _ in range(_REFITS):
        held_out = (hat @ facing - leverage * facing) / (1 - leverage)  # the fit without each image, in closed form
        before, facing = facing, np.where(held_out < 0, -1.0, 1.0)
        if (facing == before).all():
            break
    # For other images the plain mean is better: it does not learn the sample's own backgrounds.
    direction = (difference * facing[:, None]).mean(axis=0).astype(np.float32)
    template = FacingTemplate(mean, direction, _sharpness(difference @ direction, facing))
    return FittedFacing(template, agreement, (_sharpness(held_out, facing) * held_out).astype(np.float32))


def _sharpness(projected: NDArray[np.floating], facing: NDArray[np.float64]) -> float:
    """Return the factor from projections (N,) to half the log odds of the facing, of two normal distributions."""
    turned = projected * facing
    return float(turned.mean() / max(float(turned.var()), 1e-12))


def facings(half_log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return facings from half of their log odds: the sign is the way, the magnitude how sure it is, 0 to 1.

    It is the difference of the two ways' probabilities.
    """
    facing: NDArray[np.float32] = np.tanh(half_log_odds).astype(np.float32)
    return facing


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
