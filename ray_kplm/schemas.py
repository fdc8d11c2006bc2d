"""The Arrow schema of every table on storage, and the sentinels.

Every table has one row for each image. `ingest` cuts a split into parts; all later tables of this split have parts of the same
names, whose rows are the same images in the same order. So a part of images is read with its part of labels without a shuffle
or a join.

Points on storage are in the **crop** frame unless a column says otherwise: float32 (x, y), pixel centres at integers (see
`imaging.coordinates`).
"""

from __future__ import annotations

import pyarrow as pa

NONE = -1
"""No cluster or no landmark: the sentinel of every integer assignment."""

TRAIN, TEST = "train", "test"
"""The two splits. Discovery reads `train` only."""

_POINTS = pa.list_(pa.list_(pa.float32(), 2))

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # unique in the dataset; the path below the source folder
        pa.field("image", pa.binary(), nullable=False),  # the crop, encoded (JPEG or PNG), RGB
        pa.field("width", pa.int32(), nullable=False),  # of the crop, pixels
        pa.field("height", pa.int32(), nullable=False),
        # The object's x0, y0, x1, y1 in the crop; null: not given. Arrow writes nulls of fixed-size lists to Parquet that
        # it cannot read back, hence a list of any length.
        pa.field("box", pa.list_(pa.float32())),
        pa.field("crop_to_source", pa.list_(pa.float64(), 6), nullable=False),  # row-major 2 x 3 affine map
        pa.field("sequence", pa.string()),  # the video that the image is a frame of; null: not a frame
        pa.field("frame", pa.int64()),  # index of the frame in the video
        pa.field("source_width", pa.int32()),  # of the source picture, pixels; null: not known
        pa.field("source_height", pa.int32()),
    ]
)
"""`<dataset>/<split>/images/part-00000.parquet`: the only table that discovery reads, except for `detector: noisy_gt`."""

LANDMARKS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("landmarks", _POINTS, nullable=False),  # (L, 2), crop frame; NaN: not annotated
        pa.field("visible", pa.list_(pa.bool_()), nullable=False),  # (L,)
        pa.field("group", pa.string()),  # images of one group are in the same split
        pa.field("attributes", pa.map_(pa.string(), pa.float64()), nullable=False),  # numbers to bucket by, such as yaw
    ]
)
"""`<dataset>/<split>/landmarks/part-00000.parquet`: annotation, for the evaluation and `detector: noisy_gt` only."""

REJECTED = pa.schema([pa.field("source", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])
"""`<dataset>/rejected.parquet`: every input that did not become an image, and why."""

KEYPOINTS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("xy", _POINTS, nullable=False),  # (N, 2), crop frame
        pa.field("score", pa.list_(pa.float32()), nullable=False),  # (N,)
    ]
)
"""`<run>/keypoints/part-00000.parquet`: the generic keypoints that the method starts from."""

LABELS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("xy", _POINTS, nullable=False),  # (N, 2), crop frame
        pa.field("score", pa.list_(pa.float32()), nullable=False),  # (N,)
        pa.field("landmark", pa.list_(pa.int16()), nullable=False),  # (N,) of 0 .. K - 1, each at most once an image
        pa.field("cluster", pa.list_(pa.int16()), nullable=False),  # (N,) of 0 .. M - 1, each at most once an image
        pa.field("cluster_flipped", pa.list_(pa.int16()), nullable=False),  # (N,) of 0 .. M - 1, in the mirrored image
    ]
)
"""`<run>/rounds/000/labels/part-00000.parquet`: a round's pseudo-labels.

`cluster` is NONE for a point that the second duplicate filter dropped (it is a landmark, but trains nothing).
"""


FACINGS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("facing", pa.float32(), nullable=False),  # the sign is the way, the magnitude how sure it is, 0 to 1
    ]
)
"""`<run>/facing/part-00000.parquet`: which way the object of each training image faces, before the warm-up."""


def features_schema(descriptor_dim: int) -> pa.Schema:
    """Return the schema of `<run>/rounds/000/features/part-00000.arrow`: detected keypoints and their descriptors.

    `descriptors` and `descriptors_flipped` are float16 (N, d), unit norm, stored flat (N * d). The size of the crop is there to
    convert its frame to the network's input without reading the image. What is small comes first, so that it is read at once.

    Args:
        descriptor_dim: d.
    """
    metadata = {"descriptor_dim": str(descriptor_dim)}
    flat = pa.list_(pa.float16())
    return pa.schema(
        [
            pa.field("usable", pa.list_(pa.bool_()), nullable=False),  # (N,), whether descriptors are finite and not 0
            *KEYPOINTS,
            IMAGES.field("width"),
            IMAGES.field("height"),
            pa.field("descriptors", flat, nullable=False),
            pa.field("descriptors_flipped", flat, nullable=False),
        ],
        metadata=metadata,
    )


def earlier_features_schema(descriptor_dim: int) -> pa.Schema:
    """Return the schema of the features of earlier versions, `part-00000.parquet`."""
    schema = features_schema(descriptor_dim)
    return schema.remove(schema.get_field_index("usable"))


PREDICTIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("xy", _POINTS, nullable=False),  # (K, 2), crop frame; NaN: landmark not detected
        pa.field("confidence", pa.list_(pa.float32()), nullable=False),  # (K,), the peak of the landmark's heatmap
        pa.field("probability", pa.list_(pa.float32())),  # (K,), of being there; null: the predictor has no model of it
    ]
)
"""`<run>/evaluation/<stage>/<split>/part-00000.parquet`: the landmarks of an image, in order."""

OBSERVATIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("xy", _POINTS, nullable=False),  # (K, 2), input frame; NaN: not detected
        pa.field("confidence", pa.list_(pa.float32()), nullable=False),  # (K,)
        pa.field(
            "sharpness", pa.list_(pa.float32()), nullable=False
        ),  # (K,), of the heatmaps' peaks; NaN: not detected
        pa.field("separation", pa.list_(pa.float32())),  # (K,), of the descriptors; null: the method has none
        pa.field("expected", _POINTS, nullable=False),  # (V * K, 2), xy mapped by the views' known warps; NaN: outside
        pa.field("found", _POINTS, nullable=False),  # (V * K, 2), where the landmarks are detected in the views
        pa.field("view_confidence", pa.list_(pa.float32()), nullable=False),  # (V * K,)
        pa.field("alone", _POINTS, nullable=False),  # (K, 2), without averaging with the mirror image
        pa.field("mirrored", _POINTS, nullable=False),  # (K, 2), likewise in the mirror image, mirrored back
        pa.field("picture", pa.binary(), nullable=False),  # the input made smaller, JPEG, RGB
        pa.field("box", pa.list_(pa.float32())),  # x0, y0, x1, y1 of the object; null: not given
        # Landmarks (K, 2) of composites, null where the image has none: the object at its own place, moved, and at its own
        # place on the background of another image.
        pa.field("placed", _POINTS),
        pa.field("moved", _POINTS),
        pa.field("swapped", _POINTS),
        pa.field("shift", pa.list_(pa.float32())),  # (2,), by which the object was moved
        pa.field("covers", pa.list_(pa.bool_())),  # (K,), whether a landmark lies on what was cut out
    ]
)
"""`<run>/evaluation/quality/<stage>/part-00000.parquet`: landmarks of an image, of V warped views, of its mirror image and of
composites of its object.

Points are in the input frame, the only one that views have."""

OTHER_LANDMARKS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field(
            "xy", _POINTS, nullable=False
        ),  # (J, 2), shares of the square that the letterbox fills; NaN: not detected
    ]
)
"""`<run>/evaluation/quality_against/<run>-<stage>/part-00000.parquet`: landmarks of an image by the detector of another run."""

SOURCE_LANDMARKS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path#0, path#1, ... if there are several boxes in an image
        pa.field("xy", _POINTS, nullable=False),  # (K, 2), source frame; NaN: landmark not detected
        pa.field("confidence", pa.list_(pa.float32()), nullable=False),  # (K,), the peak of the landmark's heatmap
        pa.field("probability", pa.list_(pa.float32())),  # (K,), of being found; null: the detector has no model of it
        pa.field("found", pa.list_(pa.bool_()), nullable=False),  # (K,), whether the probability is high enough
        pa.field(
            "width", pa.int32()
        ),  # of the source image, pixels; null: not known, of a dataset with boxes of earlier versions
        pa.field("height", pa.int32()),
        pa.field("sequence", pa.string()),  # the video that the image is a frame of; null: not a frame
        pa.field("frame", pa.int64()),  # index of the frame in the video
        pa.field("time", pa.float64()),  # when it is shown, seconds after the first frame; null: not known
    ]
)
"""`<out>/part-00000.parquet` of `kplm predict`: the landmarks of an object, in order."""
