"""Files of all kinds are decoded to the right colours, upright, or refused with a reason."""

import io
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ray_kplm.datasets import image_io
from ray_kplm.datasets.limits import Limits
from ray_kplm.errors import DataError
from ray_kplm.imaging import coordinates
from ray_kplm.storage import Folder

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def smooth(width: int = 80, height: int = 60) -> Image.Image:
    """A colour ramp: any shift, flip or rotation of it shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def noise(width: int = 80, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_is_decoded_and_only_rgb_jpeg_and_png_are_plain(form):
    picture = image_io.decode_image_file(saved(smooth(), form))
    assert picture.rgb.shape == (60, 80, 3)
    assert picture.rgb.dtype == np.uint8
    assert np.abs(picture.rgb.astype(int) - np.asarray(smooth())).mean() < 8
    assert picture.plain == (form in ("JPEG", "PNG"))


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("TIFF", {}), ("PNG", {})])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied(form, options, orientation):
    upright = smooth()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transposition a camera would have stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = image_io.decode_image_file(saved(upright.transpose(Image.Transpose(undo)), form, exif=exif, **options))
    assert picture.rgb.shape == (60, 80, 3)
    assert np.abs(picture.rgb.astype(int) - np.asarray(upright)).mean() < 4
    assert not picture.plain


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    deep = np.array([[0, 257, 32768, 65535]] * 2, dtype=np.uint16)
    rgb = image_io.decode_image_file(saved(Image.fromarray(deep), form)).rgb
    assert rgb[0].tolist() == [[0, 0, 0], [1, 1, 1], [128, 128, 128], [255, 255, 255]]


@pytest.mark.parametrize("white", [1, 255, 4095, 1e9])
def test_a_float_tiff_is_scaled_by_the_range_that_occurs(white):
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32) * white
    picture = image_io.decode_image_file(saved(Image.fromarray(values), "TIFF"))
    assert picture.rgb[0, :, 0].tolist() == [0, 128, 255]
    assert picture.notes == ("deep pictures scaled by the range that occurs",)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_bilevel_images_are_decoded(mode):
    picture = image_io.decode_image_file(saved(Image.new("RGB", (8, 8), WHITE).convert(mode), "PNG"))
    assert (picture.rgb == 255).all()
    assert not picture.plain


def test_cmyk_jpeg_is_decoded():
    rgb = image_io.decode_image_file(saved(Image.new("RGB", (16, 16), RED).convert("CMYK"), "JPEG")).rgb
    assert np.abs(rgb[8, 8].astype(int) - RED).max() < 10


def test_transparent_pixels_become_white():
    rgba = Image.new("RGBA", (4, 1), (0, 0, 255, 255))
    rgba.putpixel((0, 0), (255, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    rgb = image_io.decode_image_file(saved(rgba, "PNG")).rgb
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[0, 1].tolist() == [127, 127, 127]
    assert rgb[0, 2].tolist() == [0, 0, 255]


def test_a_transparent_colour_of_an_rgb_png_becomes_white():
    image = Image.new("RGB", (4, 4), RED)
    image.putpixel((1, 0), BLUE)
    picture = image_io.decode_image_file(saved(image, "PNG", transparency=RED))
    assert picture.rgb[0, :2].tolist() == [list(WHITE), list(BLUE)]
    assert not picture.plain


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_white(form):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    rgb = image_io.decode_image_file(saved(palette, form, transparency=0)).rgb
    assert rgb[0].tolist() == [list(WHITE), list(GREEN)]


def test_of_a_jpeg_with_a_second_picture_the_first_is_used_and_stored():
    content = saved(smooth(), "MPO", save_all=True, append_images=[noise()], quality=95)
    picture = image_io.decode_image_file(content)
    assert np.abs(picture.rgb.astype(int) - np.asarray(smooth())).mean() < 4
    assert picture.plain
    with Image.open(io.BytesIO(picture.content)) as stored:
        assert (stored.format, len(picture.content) < len(content) / 2) == ("JPEG", True)
        assert (np.asarray(stored) == picture.rgb).all()


def test_an_animation_is_decoded_to_its_first_frame():
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    assert image_io.decode_image_file(saved(first, "GIF", save_all=True, append_images=[second])).rgb[
        0, 0
    ].tolist() == [*RED]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_refused(form, share):
    content = saved(noise(), form)
    with pytest.raises(DataError, match=r"truncated|unreadable"):
        image_io.decode_image_file(content[: int(len(content) * share)])


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_incomplete_download_of_full_length_is_refused(form):
    content = saved(noise(), form)
    half = len(content) // 2
    with pytest.raises(DataError, match=r"truncated|unreadable"):
        image_io.decode_image_file(content[:half] + bytes(len(content) - half))


@pytest.mark.parametrize("trailer", [b"", bytes(999), b"\xff\xda" + bytes(range(256)) * 8])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_complete_jpeg_with_a_trailer_or_a_thumbnail_is_accepted(progressive, trailer):
    exif = Image.Exif()
    exif[0x927C] = saved(smooth(8, 8), "JPEG")
    content = saved(noise(), "JPEG", exif=exif, progressive=progressive, restart_marker_blocks=2)
    assert content.count(b"\xff\xd9") == 2, "the thumbnail's end must not pass for the picture's"
    assert image_io.decode_image_file(content + trailer).rgb.shape == (60, 80, 3)
    cut_short = content[: len(content) // 2] + bytes(999)
    with pytest.raises(DataError, match=r"truncated|unreadable"):
        image_io.decode_image_file(cut_short)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is a text, whatever its name", "not an image"),
        (bytes(1000), "not an image"),
    ],
)
def test_content_that_is_no_image_is_refused(content, reason):
    with pytest.raises(DataError, match=f"^{reason}$"):
        image_io.decode_image_file(content)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    with pytest.raises(DataError, match=r"^too large: "):
        image_io.decode_image_file(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_picture_of_more_pixels_than_the_limit_is_refused_with_the_number(form):
    content = saved(noise(), form)
    assert image_io.decode_image_file(content, Limits(pixels=80 * 60)).rgb.shape == (60, 80, 3)
    with pytest.raises(DataError, match=r"^too large: 80 x 60 = 0\.0 million pixels; max_pixels is 0\.004799 million"):
        image_io.decode_image_file(content, Limits(pixels=80 * 60 - 1))


def test_an_image_file_of_more_bytes_than_the_limit_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "sparse.png", "wb") as file:
        file.write(saved(smooth(), "PNG"))
        file.truncate(3 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"^too large: a file of 3221\.2 MB; max_bytes is 268\.4 MB"):
        image_io.read_image_bytes(Folder.at(tmp_path), "sparse.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18, "kB"
    with pytest.raises(DataError, match=r"^too large: a file of 0\.0 MB"):
        image_io.decode_image_file(saved(smooth(), "PNG"), Limits(file_bytes=99))


def test_an_image_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match=r"^unreadable: no such file"):
        image_io.read_image_bytes(Folder.at(tmp_path), "gone.jpg")
    with pytest.raises(DataError, match=r"^unreadable: a folder"):
        image_io.read_image_bytes(Folder.at(tmp_path), "folder.jpg")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_a_picture_without_a_visible_pixel_is_refused(mode):
    image = Image.new("RGBA", (40, 30), (200, 10, 10, 0))
    options = {"transparency": 0} if mode == "P" else {}
    image = Image.new("P", (40, 30), 0) if mode == "P" else image.convert(mode)
    with pytest.raises(DataError, match=r"^transparent: no pixel is visible"):
        image_io.decode_image_file(saved(image, "TIFF" if mode == "PA" else "PNG", **options))


def test_memory_of_a_large_picture_is_its_pixels_and_not_several_copies(tmp_path):
    """A process of its own, as the peak of a process never falls."""
    for mode in ("RGB", "RGBA"):
        Image.new(mode, (6000, 5000), (9, 99, 199, 255)[: len(mode)]).save(tmp_path / f"{mode}.png", compress_level=1)
        code = (
            "import resource, sys\nfrom ray_kplm.datasets.image_io import decode_image_file\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "content = open(sys.argv[1], 'rb').read()\nbefore = peak()\ndecode_image_file(content)\nprint(peak() - before)"
        )
        command = [sys.executable, "-c", code, str(tmp_path / f"{mode}.png")]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert int(printed) * 1024 < 9 * 30_000_000


def test_a_crop_that_is_not_scaled_is_exact():
    rgb = np.asarray(noise())
    crop, crop_to_source = image_io.crop(rgb, image_io.Window(10, 20, 30, 30), 64)
    assert (crop == rgb[20:50, 10:40]).all()
    assert crop_to_source.tolist() == [[1, 0, 10], [0, 1, 20]]


def test_a_crop_replicates_the_border():
    rgb = np.asarray(noise())
    crop, crop_to_source = image_io.crop(rgb, image_io.Window(-5, -7, 90, 90), 90)
    assert (crop[7:67, 5:85] == rgb).all()
    assert (crop[:7, 5:85] == rgb[:1]).all()
    assert (crop[67:, 85:] == rgb[-1, -1]).all()
    assert coordinates.apply(crop_to_source, np.array([5.0, 7.0])).tolist() == [0, 0]


def test_a_crop_averages_by_area_and_its_map_keeps_pixel_centres():
    rgb = np.asarray(noise())
    crop, crop_to_source = image_io.crop(rgb, image_io.Window(8, 4, 40, 40), 10)
    cells = rgb[4:44, 8:48].reshape(10, 4, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(crop - cells).max() <= 0.51
    assert coordinates.apply(crop_to_source, np.array([0.0, 2.0])).tolist() == [9.5, 13.5]


def test_whole_picture_keeps_its_aspect_and_is_never_enlarged():
    rgb = np.asarray(smooth(300, 100))
    assert image_io.crop(rgb, image_io.full_window(rgb), 50)[0].shape == (17, 50, 3)
    assert image_io.crop(rgb, image_io.full_window(rgb), 999)[0].shape == (100, 300, 3)
    strip = np.zeros((2, 4000, 3), np.uint8)
    assert image_io.crop(strip, image_io.full_window(strip), 50)[0].shape == (1, 50, 3)


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("box", [(10.0, 20.0, 39.0, 29.0), (3.3, 4.4, 20.1, 33.3), (-20.0, 10.0, 0.0, 12.0)])
def test_window_is_square_centred_and_holds_the_box_and_its_margin(box, margin):
    window = image_io.window_around(box, margin, image_io.Window(0, 0, 80, 60))
    x0, y0, x1, y1 = box
    longer = max(x1 - x0, y1 - y0) + 1
    assert window.width == window.height
    assert longer * (1 + 2 * margin) - 1e-6 <= window.width < longer * (1 + 2 * margin) + 1
    assert abs(window.left + (window.width - 1) / 2 - (x0 + x1) / 2) <= 0.5
    assert abs(window.top + (window.height - 1) / 2 - (y0 + y1) / 2) <= 0.5


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((80.0, 0.0, 99.0, 9.0), "box outside the image"),
        ((0.0, -20.0, 9.0, -1.0), "box outside the image"),
        ((-1e9, -1e9, 1e9, 1e9), "box too large"),
    ],
)
def test_impossible_boxes_are_refused(box, reason):
    with pytest.raises(DataError, match=reason):
        image_io.window_around(box, 0.2, image_io.Window(0, 0, 80, 60))


def test_crop_beyond_the_pixel_limit_is_refused():
    with pytest.raises(DataError, match="box too large"):
        image_io.window_around((0.0, 0.0, 11_999.0, 99.0), 0.0, image_io.Window(0, 0, 12_000, 100))


def test_encoding_keeps_the_order_of_colours():
    assert (
        np.abs(
            image_io.decode_image_file(image_io.encode_jpeg(np.full((16, 16, 3), RED, np.uint8))).rgb[8, 8]
            - np.array(RED)
        ).max()
        < 4
    )


def test_pictures_below_the_least_side_are_refused():
    image_io.check_side(np.zeros((32, 99, 3), np.uint8), 32)
    with pytest.raises(DataError, match=r"^too small: 99 x 31 px"):
        image_io.check_side(np.zeros((31, 99, 3), np.uint8), 32)
