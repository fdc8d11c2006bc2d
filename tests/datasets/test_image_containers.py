"""Metadata never decides over pixels: whatever it is, the picture is kept, upright, with the same pixels as without it."""

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ray_kplm.datasets.image_containers import jpeg_scans_are_complete, without_metadata
from ray_kplm.datasets.image_io import decode_image_file
from ray_kplm.errors import DataError
from ray_kplm.imaging.crops import decode_crop

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(width=90, height=60, seed=0) -> Image.Image:
    """Smooth, without symmetry, of all colours."""
    few = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def after_header(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def before_end(png: bytes, *chunks: bytes) -> bytes:
    return png[:-12] + b"".join(chunks) + png[-12:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_start(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def tiff_entries(*entries: bytes, order="<") -> bytes:
    """A TIFF structure with one directory of 12-byte entries and 64 spare bytes."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    body = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return magic + struct.pack(order + "I", 8) + body + bytes(64)


def turned(value: int, order="<") -> bytes:
    return struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)


def undone(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera would have stored it."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    return image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))


PNG, JPEG = saved(picture(), "PNG"), saved(picture(), "JPEG", quality=95)
HUGE = zlib.compress(b"{}" * (3 << 20))
RATIONAL = struct.pack("<HHII", 0x011A, 5, 1, 38)  # into spare zeros: 0/0


@pytest.mark.parametrize(
    "content",
    [
        after_header(PNG, chunk(b"iTXt", b"prompt\0\1\0\0\0" + HUGE)),
        after_header(PNG, chunk(b"zTXt", b"prompt\0\0" + HUGE)),
        after_header(PNG, chunk(b"tEXt", b"prompt\0" + bytes(5 << 20))),
        before_end(PNG, chunk(b"iTXt", b"prompt\0\1\0\0\0" + HUGE)),
        after_header(PNG, *[chunk(b"tEXt", b"k%d\0" % i + bytes(1 << 16)) for i in range(99)]),
        after_header(PNG, chunk(b"zTXt", b"prompt\0\0no zlib stream")),
        after_header(PNG, chunk(b"iTXt", b"no separators")),
        after_header(PNG, chunk(b"eXIf", b"\0\x08\0\2\1\x12\0\3")),
        after_header(PNG, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
        after_header(PNG, chunk(b"eXIf", b"")),
        after_header(PNG, chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(20 << 20)))),
        after_header(PNG, chunk(b"iCCP", b"profile\0\7nothing")),
        after_header(PNG, chunk(b"gAMA", struct.pack(">I", 9_000_000))),
        after_header(PNG, chunk(b"gAMA", b"\0")),
        after_header(PNG, chunk(b"cHRM", b"short")),
        after_header(PNG, chunk(b"pHYs", b"")),
        after_header(PNG, chunk(b"tIME", b"\1")),
        after_header(PNG, chunk(b"prVt", bytes(99))),
        after_header(PNG, chunk(b"tEXt", b"Comment\0hello", checksum=7)),
        PNG + b"garbage after the end",
        before_end(PNG, chunk(b"tEXt", b"Raw profile type exif\0not hexadecimal")),
        PNG[:-12],
        PNG[:-4],
        after_header(PNG, struct.pack(">I", 1 << 30) + b"tEXtlength beyond the file"),
    ],
)
def test_a_png_of_any_metadata_has_its_pixels(content):
    found = decode_image_file(content)
    assert (found.rgb == np.asarray(picture())).all()
    assert found.plain
    assert (decode_crop(pa.scalar(found.content)) == found.rgb).all()
    assert len(found.content) <= len(PNG)


@pytest.mark.parametrize(
    "content",
    [
        after_start(JPEG, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x02\0" + RATIONAL + struct.pack("<ii", -1, 0))),
        after_start(JPEG, segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff")),
        after_start(JPEG, segment(0xE1, b"Exif\0\0")),
        after_start(JPEG, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta unclosed")),
        after_start(JPEG, segment(0xE2, b"ICC_PROFILE\0\2\1only the second of one")),
        after_start(JPEG, segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000))),
        after_start(JPEG, segment(0xE2, b"MPF\0II*\0\x08\0\0\0broken")),
        after_start(JPEG, segment(0xE2, b"MPF\0")),
        after_start(JPEG, segment(0xED, b"Photoshop 3.0\08BIM\x04\x04\0\0\xff\xff\xff\xff")),
        after_start(JPEG, segment(0xFE, b"\xff\xfe comment \xff\xd9")),
        after_start(JPEG, *[segment(0xEF, bytes(65_000))] * 40),
        after_start(JPEG, segment(0xE0, b"JFIF\0")),
        JPEG[:-2],
        JPEG[:-1],
        JPEG + bytes(4096),
        JPEG + b"--boundary\r\nanother picture\xff\xd8\xff\xda",
        JPEG[:-2] + bytes(4096),
    ],
)
def test_a_jpeg_of_any_metadata_has_its_pixels(content):
    found = decode_image_file(content)
    assert (found.rgb == decode_image_file(JPEG).rgb).all()
    assert found.plain
    assert (decode_crop(pa.scalar(found.content)) == found.rgb).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_with_broken_metadata_are_upright(form, orientation, order):
    exif = tiff_entries(
        turned(orientation, order),
        struct.pack(order + "HHII", 0x011A, 10, 1, 50),  # a signed rational, -1/0
        struct.pack(order + "HHII", 0x8769, 4, 1, 1 << 30),  # a directory beyond the end
        struct.pack(order + "HHII", 0x9999, 77, 1 << 30, 1 << 30),  # a type that there is not
        order=order,
    )
    exif = exif[:50] + struct.pack(order + "ii", -1, 0) + exif[58:]
    stored = undone(picture(), orientation)
    if form == "JPEG":
        content = after_start(saved(stored, "JPEG", quality=95), segment(0xE1, b"Exif\0\0" + exif))
    elif form == "PNG":
        content = after_header(saved(stored, "PNG"), chunk(b"eXIf", exif, checksum=1))
    else:
        content = saved(stored, "WEBP", lossless=True, exif=exif)
    found = decode_image_file(content)
    assert found.rgb.shape == (60, 90, 3)
    assert np.abs(found.rgb.astype(int) - np.asarray(picture())).max() < (1 if form != "JPEG" else 40)
    assert found.plain == (orientation == 1 and form != "WEBP")


@pytest.mark.parametrize(
    "exif",
    [
        tiff_entries(turned(9)),
        tiff_entries(turned(0)),
        tiff_entries(turned(6))[:15],
        tiff_entries(struct.pack("<HHII", 0x0112, 2, 1, 6)),  # a letter
        tiff_entries(struct.pack("<HHII", 0x0112, 3, 0, 6)),  # no value
        struct.pack("<4sI", b"II*\0", 1 << 31),
        b"Exif\0\0",
    ],
)
def test_an_orientation_that_is_none_turns_nothing(exif):
    content = after_start(JPEG, segment(0xE1, b"Exif\0\0" + exif))
    assert (decode_image_file(content).rgb == decode_image_file(JPEG).rgb).all()


def test_the_orientation_of_xmp_counts_where_exif_has_none():
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="3"/>'
    content = after_start(saved(undone(picture(), 3), "JPEG", quality=95), segment(0xE1, xmp))
    assert np.abs(decode_image_file(content).rgb.astype(int) - np.asarray(picture())).max() < 40
    both = after_start(content, segment(0xE1, b"Exif\0\0" + tiff_entries(turned(1))))
    assert (decode_image_file(both).rgb == decode_image_file(content).rgb[::-1, ::-1]).all()


@pytest.mark.parametrize("compressed", [False, True])
def test_the_orientation_in_hexadecimal_text_of_a_png_counts(compressed):
    exif = b"Exif\0\0" + tiff_entries(turned(6))
    text = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    key = b"Raw profile type exif\0"
    added = chunk(b"zTXt", key + b"\0" + zlib.compress(text)) if compressed else chunk(b"tEXt", key + text)
    found = decode_image_file(after_header(saved(undone(picture(), 6), "PNG"), added))
    assert (found.rgb == np.asarray(picture())).all()


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_with_broken_or_cut_metadata_has_its_pixels(lossless):
    whole = saved(
        picture(), "WEBP", lossless=lossless, exif=b"Exif\0\0II*\0broken", icc_profile=b"no profile", xmp=b"<"
    )
    expected = decode_image_file(saved(picture(), "WEBP", lossless=lossless)).rgb
    at = whole.index(b"XMP ")
    for content in (whole, whole[:at], whole + b"trailing", whole[:at] + b"XMP \xff\xff\xff\x7f"):
        assert (decode_image_file(content).rgb == expected).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_kept_if_it_has_all_rows_and_refused_if_not(mode, options):
    content = saved(picture().convert(mode), "JPEG", quality=95, **options)
    assert content.endswith(b"\xff\xd9")
    whole = decode_image_file(content).rgb
    assert (decode_image_file(content[:-2]).rgb == whole).all()
    for share in (0.3, 0.6, 0.9, 0.97):
        cut = content[: int(len(content) * share)]
        for end in (b"", bytes(5000), b"\xff" * 5000):
            with pytest.raises(DataError, match=r"^(truncated|unreadable)"):
                decode_image_file(cut + end)


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}])
def test_a_cut_jpeg_that_was_given_an_end_marker_is_refused(options):
    content = saved(picture(), "JPEG", quality=95, **options)
    for share in (0.5, 0.9):
        with pytest.raises(DataError, match=r"^truncated"):
            decode_image_file(content[: int(len(content) * share)] + b"\xff\xd9")


def test_a_grey_corner_is_no_fault():
    grey = Image.new("RGB", (64, 48), (128, 128, 128))
    grey.paste(picture(32, 24), (0, 0))
    assert decode_image_file(saved(grey, "JPEG", quality=95)).rgb.shape == (48, 64, 3)


def test_scans_of_a_progressive_jpeg_are_followed_to_the_last_bit():
    content = without_metadata(saved(picture(), "JPEG", progressive=True)).content
    assert jpeg_scans_are_complete(content)
    scans = [at for at in range(len(content)) if content.startswith(b"\xff\xda", at)]
    assert len(scans) > 3
    for start in scans:
        assert not jpeg_scans_are_complete(content[:start] + b"\xff\xd9")


def test_pixel_data_of_a_png_with_a_wrong_checksum_is_kept_if_it_is_whole_and_refused_if_not():
    at = PNG.index(b"IDAT")
    length = int.from_bytes(PNG[at - 4 : at], "big")
    wrong = PNG[: at + 4 + length] + b"\0\0\0\0" + PNG[at + 8 + length :]
    found = decode_image_file(wrong)
    assert (found.rgb == np.asarray(picture())).all()
    assert (cv2.imdecode(np.frombuffer(found.content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1] == found.rgb).all()
    for offset in random.Random(0).sample(range(at + 8, at + length), 12):
        flipped = bytearray(PNG)
        flipped[offset] ^= 0x10
        with pytest.raises(DataError, match=r"^unreadable: a checksum"):
            decode_image_file(bytes(flipped))


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_of_an_animation_the_first_frame_is_used(form):
    frames = [picture(seed=i).quantize(200, dither=Image.Dither.NONE).convert("RGB") for i in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    content = saved(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options)
    assert (decode_image_file(content).rgb == np.asarray(frames[0])).all()


def test_a_chunk_that_no_decoder_knows_is_named():
    with pytest.raises(DataError, match=r"^unreadable: PNG with a chunk CgBI"):
        decode_image_file(SIGNATURE + chunk(b"CgBI", b"P\0 \2") + PNG[8:])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_random_damage_is_refused_with_a_reason_or_decoded_and_never_another_error(form):
    content, draw = saved(picture(), form), random.Random(1)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 6)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            found = decode_image_file(bytes(damaged[: draw.randint(1, len(damaged))]))
        except DataError:
            continue
        assert found.rgb.ndim == 3
