"""Kinds of files, by name and by content."""

import io
import sys
from types import ModuleType

import pytest
from PIL import Image

from ray_kplm.datasets import file_kinds
from ray_kplm.datasets.image_io import decode_image_file


def encoded(form: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 36), (200, 100, 50)).save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "extension"),
    [
        ("JPEG", ".jpg"),
        ("PNG", ".png"),
        ("WEBP", ".webp"),
        ("GIF", ".gif"),
        ("BMP", ".bmp"),
        ("TIFF", ".tif"),
        ("PPM", ".ppm"),
        ("JPEG2000", ".jp2"),
        ("AVIF", ".avif"),
    ],
)
def test_a_picture_is_recognised_by_its_content_and_decoded(form, extension):
    content = encoded(form)
    assert file_kinds.kind_of_content(content[: file_kinds.SIGNATURE_BYTES]) == extension
    assert file_kinds.is_picture(extension)
    rgb = decode_image_file(content).rgb
    assert rgb.shape == (36, 40, 3)
    assert abs(rgb[18, 20].astype(int) - [200, 100, 50]).max() < 12


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", ".heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", ".heic"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", ".avif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", ".mp4"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", ".cr3"),
        (b"%PDF-1.7", ".pdf"),
        (b'<?xml version="1.0"?><svg xmlns', ".svg"),
        (b"<!DOCTYPE html><html>", ".html"),
        (b"PK\x03\x04", ".zip"),
        (b"\x1f\x8b\x08", ".gz"),
        (b"version https://git-lfs.github.com/spec/v1", ".git-lfs"),
        (b"P3 # made by hand", ".ppm"),
        (b"PS: a letter", ""),
        (b"BM is no bitmap", ""),
        (b"hello", ""),
        (b"", ""),
    ],
)
def test_other_kinds_are_recognised_by_their_start(start, kind):
    assert file_kinds.kind_of_content(start) == kind


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (".nef", "raw camera"),
        (".svg", "drawings"),
        (".pdf", "PNG"),
        (".mp4", "--every N"),
        (".zip", "unpack"),
        (".dcm", "medical"),
        (".jxl", "convert"),
    ],
)
def test_what_is_not_read_comes_with_what_to_do(extension, words):
    assert file_kinds.is_known_unread(extension)
    assert words in file_kinds.advice(extension)
    assert not file_kinds.is_picture(extension)


def test_heic_is_read_with_the_extra_and_named_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # its import fails
    file_kinds.picture_extensions.cache_clear()
    assert file_kinds.is_known_unread(".heic")
    assert "`.[heif]`" in file_kinds.advice(".heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", ModuleType("pillow_heif"))
    file_kinds.picture_extensions.cache_clear()
    assert file_kinds.is_picture(".heic")
    assert not file_kinds.is_known_unread(".hif")
    monkeypatch.undo()
    file_kinds.picture_extensions.cache_clear()


def test_heic_is_decoded():
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(stream)
    rgb = decode_image_file(stream.getvalue()).rgb
    assert rgb.shape == (48, 64, 3)
    assert abs(rgb[20, 20].astype(int) - [200, 100, 50]).max() < 12


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("a/._x.jpg", True),
        (".thumbnails/x.jpg", True),
        ("__MACOSX/a/x.jpg", True),
        ("a/Thumbs.db", True),
        ("a/@eaDir/x.jpg", True),
        ("a/x.jpg", False),
        ("a.b/x._y.jpg", False),
    ],
)
def test_hidden_names(path, hidden):
    assert file_kinds.is_hidden(path) == hidden


@pytest.mark.parametrize(
    ("extension", "look"),
    [
        ("", True),
        (".jpg_large", True),
        (".001", True),
        (".jpg", False),
        (".csv", False),
        (".mov", False),
        (".cat", False),
    ],
)
def test_only_files_of_unknown_extension_are_looked_into(extension, look):
    assert file_kinds.needs_a_look(extension) == look


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html><body>404 Not Found", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\0\0\0\x18ftypisom" + bytes(30), "--every N"),
        (b"%PDF-1.4", ".pdf file"),
        (b"some text", ""),
    ],
)
def test_what_a_file_that_is_no_picture_is(content, words):
    assert words in file_kinds.what_else(content)
    assert bool(words) == bool(file_kinds.what_else(content))
