"""The pixel data of PNG, JPEG and WebP files without their metadata.

Metadata is not needed for the pixels, may be huge or broken, and makes decoders refuse whole pictures. So it is left out before
a file is decoded, save for the orientation.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ray_kplm.datasets.image_orientation import UPRIGHT, orientation, read_integers
from ray_kplm.errors import DataError

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_SIGNATURES = (_PNG, _JPEG, b"GIF87a", b"GIF89a", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_EOI = b"\xff\xd9"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_WEBP_PIXELS = (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04
"""Flags of an extended WebP file for ICC profile, EXIF and XMP."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG's segments that have the size of the picture."""
_MAX_PROFILE_BYTES = 1 << 20
"""Compressed text is read up to this size."""


class PixelFile(NamedTuple):
    """An image file without metadata.

    Attributes:
        content: The file.
        orientation: Which of the eight orientations its metadata says.
        size: Width and height, where they are known without a decoder.
        ended: Whether its end marker was there; `content` has one in any case.
    """

    content: bytes
    orientation: int = UPRIGHT
    size: tuple[int, int] | None = None
    ended: bool = True


def without_metadata(content: bytes) -> PixelFile | None:
    """Return a PNG, JPEG or WebP file without its metadata; None for files of other kinds.

    Raises:
        DataError: The pixel data is damaged.
    """
    if content.startswith(_PNG):
        return _png(content)
    if content.startswith(_JPEG):
        return _jpeg(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp(content)
    return None


def is_known(content: bytes) -> bool:
    """Return whether the first bytes are those of an image file."""
    return content.startswith(_SIGNATURES) and not (content.startswith(b"RIFF") and content[8:12] != b"WEBP")


def header_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height from the header of a GIF, BMP or TIFF file; None where it does not say."""
    if content.startswith((b"GIF87a", b"GIF89a")) and len(content) >= 10:
        return struct.unpack_from("<HH", content, 6)
    if content.startswith(b"BM") and len(content) >= 26 and content[14] >= 40:
        width, height = struct.unpack_from("<ii", content, 18)
        return abs(width), abs(height)
    tags = read_integers(content)
    return (tags[256][0], tags[257][0]) if tags.keys() >= {256, 257} else None


def _png(content: bytes) -> PixelFile:
    kept, exif, xmp, ended, damaged = [_PNG], b"", b"", False, False
    for kind, body, checked in _png_chunks(content):
        if kind in _PNG_PIXELS:
            kept.append(_png_chunk(kind, body))
            damaged |= not checked and kind != b"tRNS"
        elif kind == b"eXIf":
            exif = bytes(body)
        elif kind == b"iTXt" and bytes(body[:18]) == b"XML:com.adobe.xmp\0":
            xmp = bytes(body[:_MAX_PROFILE_BYTES])
        elif kind in (b"tEXt", b"zTXt") and bytes(body[:22]) == b"Raw profile type exif\0":
            exif = exif or _exif_of_text(kind, bytes(body[22:]))
        elif kind == b"IEND":
            ended = True
    pixels = b"".join([*kept, _PNG_END])
    if damaged and not _is_whole_stream(pixels):
        raise DataError("unreadable: a checksum of the pixel data does not match")
    size = struct.unpack_from(">II", pixels, 16) if pixels[12:16] == b"IHDR" and len(pixels) >= 24 else None
    return PixelFile(pixels, orientation(exif, xmp), size, ended)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield the kind of each chunk up to the end, its body, and whether its checksum matches. A cut chunk has no checksum.

    If the length of a chunk of metadata is wrong, the walk goes on at the next pixel data.
    """
    position, view = len(_PNG), memoryview(content)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        start, end = position + 8, position + 12 + length
        is_pixels = kind in (*_PNG_PIXELS, b"IEND")
        if not is_pixels and (end > len(content) or not kind.isalpha()):
            position = content.find(b"IDAT", start) - 4
            if position < start:
                return
            continue
        if not is_pixels and kind[:1].isupper():
            raise DataError(f"unreadable: PNG with a chunk {kind.decode()}, which no decoder knows")
        body = view[start : start + length]
        checksum = zlib.crc32(body, zlib.crc32(kind)) if is_pixels else 0
        yield kind, body, end > len(content) or not is_pixels or content[end - 4 : end] == checksum.to_bytes(4, "big")
        if kind == b"IEND":
            return
        position = end


def _png_chunk(kind: bytes, body: memoryview) -> bytes:
    return b"".join([struct.pack(">I4s", len(body), kind), body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))])


def _is_whole_stream(png: bytes) -> bool:
    """Return whether the compressed data of a PNG ends with the checksum of what it holds. Nothing is kept in memory."""
    stream = zlib.decompressobj()
    try:
        for kind, body, _ in _png_chunks(png):
            waiting = bytes(body) if kind == b"IDAT" else b""
            while waiting:
                stream.decompress(waiting, 1 << 20)
                waiting = stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof


def _exif_of_text(kind: bytes, text: bytes) -> bytes:
    """Return the EXIF that older programs write into a text of a PNG, in hexadecimal digits; empty if it is not readable."""
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], _MAX_PROFILE_BYTES)
        return bytes.fromhex("".join(text.decode("ascii").split()[2:]))
    except (ValueError, zlib.error):
        return b""


def _webp(content: bytes) -> PixelFile:
    kept, exif, xmp, size = [], b"", b"", None
    position = 12
    while position + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, position)
        body = content[position + 8 : position + 8 + length]
        if kind in _WEBP_PIXELS:
            if len(body) < length:
                raise DataError("truncated")
            size = size or _webp_size(kind, body)
            if kind == b"VP8X" and body:
                body = bytes([body[0] & ~_WEBP_METADATA_FLAGS]) + body[1:]
            kept.append(struct.pack("<4sI", kind, length) + body + b"\0" * (length % 2))
        elif kind == b"EXIF":
            exif = body
        elif kind == b"XMP ":
            xmp = body
        position += 8 + length + length % 2
    pixels = b"".join(kept)
    return PixelFile(
        struct.pack("<4sI4s", b"RIFF", len(pixels) + 4, b"WEBP") + pixels, orientation(exif, xmp), size or (0, 0)
    )


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    """Return width and height from the header of a WebP file, or of its frame."""
    if kind == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _jpeg(content: bytes) -> PixelFile:
    """Keep the segments that decide the pixels, up to the end marker. libjpeg infers the colours from JFIF's and Adobe's."""
    kept, exif, xmp, ended, in_scan, position = [content[:2]], b"", b"", False, False, 2
    size: tuple[int, int] | None = None
    while found := _MARKER.search(content, position):
        marker, start = found.group()[1], found.end()
        if in_scan:
            kept.append(content[position : found.start()])
        if marker == 0xD9:
            ended = True
            break
        in_scan = marker == 0xDA
        position = start + int.from_bytes(content[start : start + 2], "big")
        body = content[start + 2 : position]
        if marker in _FRAMES and len(body) >= 5:
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        if _decides_pixels(marker, body):
            kept.append(content[found.start() : position])
        elif marker == 0xE1 and body.startswith(b"Exif\0"):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/"):
            xmp = body
    if in_scan and not ended:
        rest = content[position:].rstrip(b"\0\xff")  # what storage that was reserved before a download is filled with
        kept.append(rest)
    return PixelFile(b"".join([*kept, _EOI]), orientation(exif, xmp), size, ended)


def _decides_pixels(marker: int, body: bytes) -> bool:
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 14
    if marker == 0xEE:
        return body.startswith(b"Adobe") and len(body) >= 12
    return 0xC0 <= marker <= 0xDF and marker != 0xD8


def jpeg_with_tail(jpeg: bytes) -> bytes:
    """Return a JPEG file with more data in its last scan. A decoder ignores it, unless the data before lacks pixels."""
    return jpeg[: -len(_EOI)] + _TAIL + _EOI


_TAIL = bytes((number * 89 + number * number * 7) % 251 for number in range(4096))


def jpeg_scans_are_complete(jpeg: bytes) -> bool:
    """Return whether the scans of a JPEG file hold all coefficients of all components, to the last bit."""
    components: set[int] = set()
    missing: set[tuple[int, int]] = set()
    progressive, position = False, 2
    while found := _MARKER.search(jpeg, position):
        marker, start = found.group()[1], found.end()
        position = start + int.from_bytes(jpeg[start : start + 2], "big")
        body = jpeg[start + 2 : position]
        if marker in (0xC0, 0xC1, 0xC2):
            progressive = marker == 0xC2
            components = set(body[6::3][: body[5]])
            last = 64 if progressive else 1
            missing = {(component, k) for component in components for k in range(last)}
        elif marker == 0xDA:
            count = body[0]
            first, last, precision = body[1 + 2 * count : 4 + 2 * count]
            done = range(first, last + 1) if progressive else range(1)
            if not (progressive and precision & 0x0F):
                missing -= {(component, k) for component in body[1 : 1 + 2 * count : 2] for k in done}
    return bool(components) and not missing
