"""Encoded images of a round in Ray's object store."""

import ray

from ray_kplm.datasets.round_sampling import full_selection
from ray_kplm.runtime.image_store import RoundImages


def test_images_of_a_round_are_decoded_at_the_size_that_ingest_stored(small_dataset):
    selection = full_selection(small_dataset.parts("train"), small_dataset.rows("train")).sample(5, (3,))
    images = RoundImages.load(small_dataset.images("train"), selection)
    part, rows = selection.parts[-1], selection.rows[-1]
    stored = small_dataset.images("train").read_table(part, ["width", "height"]).take(rows)
    decoded = images[selection.images - 1]
    assert decoded.shape == (stored["height"][-1].as_py(), stored["width"][-1].as_py(), 3)
    assert len(ray.get(images.refs)) == len(selection.parts)
