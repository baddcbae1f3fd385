"""Pictures: those of users, upright and in 8 bits, and those of samples, made small."""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from gearshift.models.common.data_reports import library_errors

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""Formats of Pillow that are read. Others are not: some run programs, such as Ghostscript."""
ALLOWED = "a complete PNG, JPEG, TIFF, BMP, WebP, GIF or PPM file, grey or in color"
MAX_PIXELS = 2**26
"""Of a picture; A4 at 600 dots per inch has half as many. Small files can claim any number."""
_FIX = "fetch it again, or save it as PNG in the program that made it"
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits of scanners and cameras."""
_SILENT = logging.NullHandler()
_PHOTOMETRIC = 262
_SAMPLE_FORMAT = 339
_WHITE_IS_ZERO = 0
_UNSIGNED = 1
"""Tags and values. Source: TIFF, revision 6.0, 1992, part 1, section 8, and part 2, section 19."""


def open_picture(file: Path | IO[bytes], fix: str = _FIX, page: int = 0) -> Image.Image:
    """The picture upright, on white instead of transparency, as mode "L" or "RGB".

    `fix`: of the error; `page`: of a TIFF file. 1 and 8 bits, palettes and colors keep their
    meaning; CMYK becomes RGB. Grey of 16 bits is scaled by the smallest depth of 8, 10, 12, 14 or
    16 bits that holds its brightest pixel, since scanners of 12 bits store 4095 for white. Of an
    animation, the first frame. Disk access; raises DataError, also for Lab, for grey of more bits,
    of signed or floating-point numbers, and for CMYK in a JPEG that does not say whether 0 is ink
    or paper.
    """
    with _errors(file, fix), Image.open(file, formats=FORMATS) as image:
        problem = too_large(*image.size)
        if problem:
            raise ValueError(problem)
        if page:
            image.seek(page)
        image.load()
        facts = dict(getattr(image, "tag_v2", {}))
        is_jpeg = image.format in ("JPEG", "MPO")
        if is_jpeg and image.mode == "CMYK" and "adobe" not in image.info:
            raise ValueError("a JPEG of CMYK without the mark of Adobe may have either sign")
        return _eight_bits(ImageOps.exif_transpose(image), facts)


def count_pages(file: Path) -> int:
    """Pages of a TIFF file; 1 for all others. Reads heads; raises DataError."""
    with _errors(file, _FIX), Image.open(file, formats=FORMATS) as image:
        if image.format == "TIFF":
            return getattr(image, "n_frames", 1)
        return 1


def too_large(width: int, height: int) -> str | None:
    """Why a picture is too large to be decoded; None: it is not."""
    if width * height <= MAX_PIXELS:
        return None
    return f"{width:,} × {height:,} pixels, more than {MAX_PIXELS:,}"


def _errors(file: Path | IO[bytes], fix: str) -> AbstractContextManager[None]:
    """One DataError for whatever Pillow raises, and none of its warnings on the console."""
    logging.getLogger("PIL").addHandler(_SILENT)
    name = file if isinstance(file, Path) else "the picture"
    return library_errors(
        f"'{name}' is not a readable image",
        "data.path",
        allowed=ALLOWED,
        hint=fix,
    )


def _eight_bits(image: Image.Image, facts: dict[int, Any]) -> Image.Image:
    """`image` as "L" or "RGB"; `facts`: tags of a TIFF file."""
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _narrow_grey(image, facts)
    if mode == "LAB":
        raise ValueError("Lab is not read")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("L" if mode in ("1", "L", "LA") else "RGB")


def _narrow_grey(image: Image.Image, facts: dict[int, Any]) -> Image.Image:
    """Grey of 16 bits as "L"."""
    values = np.asarray(image)
    low = values.min()
    high = values.max()
    is_unsigned = facts.get(_SAMPLE_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,)
    is_whole = values.dtype.kind != "f" and "transparency" not in image.info
    if low < 0 or high >= 2**16 or not is_unsigned or not is_whole:
        raise ValueError("grey is read in whole numbers of up to 16 bits, without transparency")
    white = next(2**bits - 1 for bits in _DEPTHS if high < 2**bits)
    greys = np.rint(np.arange(white + 1) / white * 255).astype(np.uint8)
    if facts.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        greys = greys[::-1]  # Pillow does that for 8 bits only
    return Image.fromarray(greys[values])


COLORS = 64
_SMALLER = 0.9
"""Factor of the sides at least: compression differs with the size."""


def small(png: bytes, side: int, max_bytes: int) -> bytes:
    """The picture as a PNG of at most `side` pixels a side and `max_bytes`, in a few colors.

    Raises DataError: it is no picture.
    """
    image = open_picture(BytesIO(png)).convert("RGB")
    while True:
        image.thumbnail((side, side))
        file = BytesIO()
        image.quantize(COLORS).save(file, "PNG", optimize=True)
        if file.tell() <= max_bytes:
            return file.getvalue()
        factor = math.sqrt(max_bytes / file.tell())
        side = int(max(image.size) * min(_SMALLER, factor))
