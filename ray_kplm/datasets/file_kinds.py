"""Kinds of files by name and by content: pictures, files that are known and not read, and all others.

The name decides where its extension is known; a file without a known extension is what its first bytes say. Which pictures
can be decoded depends on the libraries of this machine.
"""

from __future__ import annotations

import functools
import importlib
import posixpath
import re
from contextlib import suppress

from PIL import features

_ALWAYS = ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm"
_JPEG_2000 = ".jp2 .j2k .j2c .jpc .jpf .jpx"
_AVIF, _HEIF = ".avif", ".heic .heif .hif"
_VIDEO = ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv"

_ADVICE = {
    "install `.[heif]` or convert": _HEIF,
    "AVIF needs Pillow 11.3 or later": _AVIF,
    "JPEG 2000 needs a Pillow with OpenJPEG": _JPEG_2000,
    "raw camera files, export as JPEG or PNG": """.3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef
    .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f""",
    "drawings and pages, export as PNG": ".ai .djvu .emf .eps .pdf .ps .svg .svgz .wmf",
    "videos, --every N takes every N-th frame (extra `video`)": _VIDEO,
    "medical images, export as PNG": ".dcm .dicom .mha .mhd .nii .nrrd",
    "archives, unpack first": ".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst",
    "convert to JPEG or PNG": """.cur .dds .exr .fits .hdr .icns .ico .jls .jxl .jxr .pcx .psb .psd .qoi .ras .sgi .tga
    .xcf .xpm""",
}
"""What to do about files that are not read, and their extensions; those of pictures count where they cannot be decoded."""
_BESIDE_PICTURES = """.cat .cdf .cfg .conf .csv .db .doc .docx .h5 .hdf5 .htm .html .ini .ipynb .json .jsonl .lock .log .m
.mat .md .md5 .npy .npz .parquet .pickle .pkl .pts .pt .pth .py .rst .sh .sha256 .sqlite .t7 .toml .tsv .txt .url .xls .xlsx
.xml .yaml .yml"""
_KNOWN_OTHERS = frozenset(_BESIDE_PICTURES.split())
"""Extensions of files that lie beside pictures; they are not opened to look for one."""

SIGNATURE_BYTES = 32
"""Number of bytes from the start of a file that `kind_of_content` looks at."""

_FTYP = {
    "avif": ".avif", "avis": ".avif",
    "heic": ".heic", "heix": ".heic", "heim": ".heic", "heis": ".heic", "hevc": ".heic", "hevx": ".heic", "mif1": ".heic",
    "msf1": ".heic", "crx ": ".cr3",
}  # fmt: skip
_SIGNATURES = (
    (rb"\xff\xd8\xff", ".jpg"),
    (rb"\x89PNG\r\n\x1a\n", ".png"),
    (rb"RIFF.{4}WEBP", ".webp"),
    (rb"GIF8[79]a", ".gif"),
    (rb"BM.{4}\0\0\0\0", ".bmp"),
    (rb"II\*\0.{4}CR", ".cr2"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", ".tif"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", ".jp2"),
    (rb"P[1-6]\s[\s#0-9]", ".ppm"),
    (rb"%PDF-", ".pdf"),
    (rb"%!PS", ".ps"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", ".jxl"),
    (rb"8BPS", ".psd"),
    (rb"gimp xcf", ".xcf"),
    (rb"RIFF.{4}AVI ", ".avi"),
    (rb"\x1aE\xdf\xa3", ".mkv"),
    (rb"PK\x03\x04", ".zip"),
    (rb"\x1f\x8b", ".gz"),
    (rb"\s*<svg|\s*<\?xml[^>]*\?>\s*<svg", ".svg"),
    (rb"\s*<(?:!doctype |!--|html)", ".html"),
    (rb"version https://git-lfs", ".git-lfs"),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL | re.IGNORECASE), kind) for pattern, kind in _SIGNATURES)

_HIDDEN_NAMES = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
)


@functools.cache
def picture_extensions() -> frozenset[str]:
    """Return the extensions, in lower case, of the pictures that this machine can decode."""
    known = [_ALWAYS]
    known += [_JPEG_2000] * bool(features.check("jpg_2000"))
    known += [_AVIF] * bool("avif" in features.modules and features.check("avif"))
    with suppress(ImportError):  # of an installation that cannot be loaded
        known += [_HEIF] * bool(importlib.import_module("pillow_heif"))
    return frozenset(" ".join(known).split())


@functools.cache
def further_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that this machine decodes and others may not; HEIC needs the extra `heif`."""
    found = ["JPEG2000"] * is_picture(".jp2") + ["AVIF"] * is_picture(".avif")
    if is_picture(".heic"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found.append("HEIF")
    return tuple(found)


@functools.cache
def _advice_of() -> dict[str, str]:
    return {extension: advice for advice, extensions in _ADVICE.items() for extension in extensions.split()}


def advice(extension: str) -> str:
    """Return what to do about files of an extension that `is_known_unread`."""
    return _advice_of()[extension]


def is_picture(extension: str) -> bool:
    """Return whether files with this extension, in lower case, are pictures that can be decoded."""
    return extension in picture_extensions()


def is_video(extension: str) -> bool:
    """Return whether files with this extension, in lower case, are videos."""
    return extension in _VIDEO.split()


def is_known_unread(extension: str) -> bool:
    """Return whether files with this extension hold pictures, or pages or videos, that are not read."""
    return extension in _advice_of() and not is_picture(extension)


def extension_of(path: str) -> str:
    """Return the extension of a path in lower case, with its dot; empty if there is none."""
    return posixpath.splitext(path)[1].lower()


def needs_a_look(extension: str) -> bool:
    """Return whether the extension does not say what the file is."""
    return not (is_picture(extension) or extension in _advice_of() or extension in _KNOWN_OTHERS)


def kind_of_content(start: bytes) -> str:
    """Return the extension of the kind of file that begins with these bytes; empty if it is not recognised.

    Args:
        start: The first SIGNATURE_BYTES of the file, or all of it.
    """
    if start[4:8] == b"ftyp":
        return _FTYP.get(start[8:12].decode("latin-1"), ".mp4")
    return next((kind for pattern, kind in _PATTERNS if pattern.match(start)), "")


def is_hidden(path: str) -> bool:
    """Return whether a path below a source leads through a hidden name, or one that an operating system adds."""
    return any(name.startswith(".") or name.lower() in _HIDDEN_NAMES for name in path.split("/"))


def what_else(content: bytes) -> str:
    """Return what the content of a file that is no picture is, for the reason of its rejection; empty if unknown."""
    kind = kind_of_content(content[:SIGNATURE_BYTES])
    if kind == ".html":
        return "a web page, perhaps of a failed download"
    if kind == ".git-lfs":
        return "a pointer of Git LFS, run `git lfs pull`"
    if is_known_unread(kind):
        return f"a {kind} file: {advice(kind)}"
    return ""
