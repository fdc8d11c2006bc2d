"""PNG and TIFF files of 16 and 32 bits, of signed numbers and floats, of every layout of the pixels: right values, upright."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ray_kplm.datasets.image_io import decode_image_file
from ray_kplm.datasets.limits import Limits
from ray_kplm.errors import DataError

Y, X = np.mgrid[:32, :48]
RAMP = np.stack([X / 47, Y / 31, (X + Y) / 78], axis=2)
"""Colours of 0 to 1 without symmetry, (32, 48, 3)."""


def expected(shares):
    rgb = np.rint(255 * shares)
    return np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else rgb


def close(found, shares, most=1) -> bool:
    want = expected(shares)
    return found.shape == want.shape and bool(np.abs(found - want).max() <= most)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(values, kind, *chunks) -> bytes:
    """A PNG of 16 bits a value; kind: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values, order="<", big=False, tile=None, planar=False, tags=()) -> bytes:
    """An uncompressed TIFF or BigTIFF of one strip a plane, or of tiles; values (H, W) or (H, W, C)."""
    values = values[..., None] if values.ndim == 2 else values
    height, width, channels = values.shape
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = [stored[..., c : c + 1] for c in range(channels)] if planar else [stored]
    blocks = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            rows, columns = range(0, padded.shape[0], tile), range(0, padded.shape[1], tile)
            blocks += [padded[y : y + tile, x : x + tile].tobytes() for y in rows for x in columns]
        else:
            blocks.append(plane.tobytes())
    start = 16 if big else 8
    offsets = np.cumsum([start, *map(len, blocks)])[:-1].tolist()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [values.dtype.itemsize * 8] * channels), 259: (3, [1]),
        262: (3, [2 if channels >= 3 else 1]), 277: (3, [channels]), 284: (3, [2 if planar else 1]),
        339: (3, [kind] * channels),
    }  # fmt: skip
    if channels in (2, 4):
        entries[338] = (3, [2])
    if tile:
        entries |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, offsets), 325: (4, list(map(len, blocks)))}
    else:
        entries |= {273: (4, offsets), 278: (4, [height]), 279: (4, list(map(len, blocks)))}
    entries |= dict(tags)
    word, inline = ("Q", 8) if big else ("I", 4)
    at = start + sum(map(len, blocks))
    extra_at = at + (8 if big else 2) + len(entries) * (20 if big else 12) + inline
    directory, extra = struct.pack(order + ("Q" if big else "H"), len(entries)), b""
    for tag, (form, numbers) in sorted(entries.items()):
        body = struct.pack(f"{order}{len(numbers)}{'HI'[form - 3]}", *numbers)
        directory += struct.pack(order + "HH" + word, tag, form, len(numbers))
        if len(body) <= inline:
            directory += body.ljust(inline, b"\0")
        else:
            directory += struct.pack(order + word, extra_at + len(extra))
            extra += body
    lead = {"<": b"II", ">": b"MM"}[order]
    header = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    return lead + header + b"".join(blocks) + directory + bytes(inline) + extra


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("kind", [0, 2, 4, 6])
def test_a_png_of_16_bits_fills_the_range(kind, white):
    shares = RAMP[..., :1] if kind in (0, 4) else RAMP
    values = shares * white
    if kind in (4, 6):
        values = np.concatenate([values, np.full((32, 48, 1), white)], axis=2)
    picture = decode_image_file(png16(np.rint(values), kind))
    assert close(picture.rgb, shares[..., 0] if kind in (0, 4) else shares)
    assert (picture.plain, len(picture.notes)) == (False, 1)


def test_a_png_of_16_bits_with_metadata_is_kept_upright():
    exif = struct.pack(">4sIHHHIHHI", b"MM\0*", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    stored = np.rint(4095 * np.rot90(RAMP))
    content = png16(stored, 2, chunk(b"eXIf", exif), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(4 << 20))))
    assert close(decode_image_file(content).rgb, RAMP)


def test_a_transparent_colour_of_16_bits_is_white():
    values = np.rint(4095 * RAMP)
    values[:8] = 17
    content = png16(values, 2, chunk(b"tRNS", struct.pack(">HHH", 17, 17, 17)))
    found = decode_image_file(content).rgb
    assert (found[:8] == 255).all()
    assert np.abs(found[8:] - expected(RAMP)[8:]).max() <= 2


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_cut_png_of_16_bits_is_refused(share):
    noise = np.random.default_rng(0).integers(0, 4096, (32, 48, 3))
    content = png16(noise, 2)
    with pytest.raises(DataError, match=r"truncated|unreadable"):
        decode_image_file(content[: int(len(content) * share)])


KINDS = [
    (np.uint16, 0, 4095), (np.uint16, 0, 65535), (np.int16, -1000, 3000), (np.int32, 0, 255), (np.uint32, 0, 4_000_000_000),
    (np.float32, 0, 1), (np.float32, 0, 255), (np.float64, -1, 1),
]  # fmt: skip
LAYOUTS = [{}, {"order": ">"}, {"big": True}, {"tile": 16}, {"tile": 16, "big": True}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("kind", "low", "high"), KINDS)
@pytest.mark.parametrize("colour", [False, True])
def test_a_tiff_of_deep_values_fills_the_range(kind, low, high, colour, layout):
    shares = RAMP if colour else RAMP[..., 2]
    values = low + shares * (high - low)
    content = tiff((values if kind in (np.float32, np.float64) else np.rint(values)).astype(kind), **layout)
    assert close(decode_image_file(content).rgb, shares)


@pytest.mark.parametrize("layout", [*LAYOUTS, {"planar": True}, {"planar": True, "tile": 16}], ids=str)
@pytest.mark.parametrize("colour", [False, True])
def test_a_tiff_of_bytes_keeps_its_values(colour, layout):
    shares = (RAMP if colour else RAMP[..., 2]) * 0.5
    picture = decode_image_file(tiff(np.rint(255 * shares).astype(np.uint8), **layout))
    assert close(picture.rgb, shares, most=0)
    assert picture.notes == ()


@pytest.mark.parametrize("layout", [{}, {"tile": 16}, {"order": ">"}, {"tile": 16, "big": True}], ids=str)
@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int32])
def test_a_deep_tiff_of_planes_is_decoded(kind, layout):
    assert close(decode_image_file(tiff((RAMP * 4095).astype(kind), planar=True, **layout)).rgb, RAMP)


def test_alpha_of_planes_is_on_white():
    values = np.rint(np.concatenate([RAMP, np.ones((32, 48, 1))], axis=2) * 65535).astype(np.uint16)
    values[:4, :, 3] = 0
    assert (decode_image_file(tiff(values, planar=True)).rgb == decode_image_file(tiff(values)).rgb).all()


def test_tiles_of_signed_bytes_are_refused():
    with pytest.raises(DataError, match="tiles of signed bytes"):
        decode_image_file(tiff(np.zeros((32, 32), np.int8), tile=16))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_is_turned_upright(kind, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = RAMP[..., 0] + 2 * RAMP[..., 1]
    grey = (255 * stored / stored.max()).astype(np.uint8)
    turned = (
        grey if orientation == 1 else np.asarray(Image.fromarray(grey).transpose(Image.Transpose(undo[orientation])))
    )
    found = decode_image_file(tiff(turned.astype(kind), tags={274: (3, [orientation])})).rgb
    assert close(found, grey / 255)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_zero_may_be_white(kind):
    content = tiff((RAMP[..., 0] * 4095).astype(kind), tags={262: (3, [0])})
    assert close(decode_image_file(content).rgb, 1 - RAMP[..., 0])


def test_alpha_of_a_deep_tiff_is_on_white():
    values = np.rint(np.concatenate([RAMP, np.ones((32, 48, 1))], axis=2) * 65535).astype(np.uint16)
    values[:4, :, 3] = 0
    found = decode_image_file(tiff(values)).rgb
    assert (found[:4] == 255).all()
    assert np.abs(found[4:] - expected(RAMP)[4:]).max() <= 1


def test_of_several_pages_the_first_is_used():
    pages = [Image.fromarray(np.rint(RAMP[..., 0] * v).astype(np.uint16)) for v in (4095, 99)]
    stream = io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    assert close(decode_image_file(stream.getvalue()).rgb, RAMP[..., 0])


@pytest.mark.parametrize("compression", [5, 8, 32946])
def test_a_compressed_deep_tiff_is_decoded(compression):
    values = np.rint(RAMP * 4095).astype(np.uint16)
    done, content = cv2.imencode(".tif", values[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert done
    assert close(decode_image_file(content.tobytes()).rgb, RAMP)
    with pytest.raises(DataError, match=r"truncated|unreadable"):
        decode_image_file(content.tobytes()[:-1000] if compression == 1 else content.tobytes()[: len(content) // 2])


def test_a_cut_deep_tiff_is_refused():
    content = tiff((RAMP * 4095).astype(np.uint16), tags={279: (4, [10 * RAMP.size])})
    with pytest.raises(DataError, match=r"^truncated"):
        decode_image_file(content)


def test_channels_that_are_no_picture_are_refused():
    with pytest.raises(DataError, match="6 channels"):
        decode_image_file(tiff(np.zeros((9, 9, 6), np.uint16)))


def test_a_deep_picture_that_is_too_large_is_refused_before_it_is_decoded():
    content = tiff(np.zeros((9, 9), np.uint16), tags={256: (4, [40_000]), 257: (4, [40_000])})
    with pytest.raises(DataError, match=r"too large: 40000 x 40000 = 1600\.0 million pixels; max_pixels is 67\.1"):
        decode_image_file(content)
    with pytest.raises(DataError, match=r"too large: 48 x 32"):
        decode_image_file(png16(np.rint(RAMP * 4095), 2), Limits(pixels=48 * 32 - 1))
