"""Reader of image files: pages without translations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from models.base import DataError
from models.common import data_files

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
ALLOWED = f"images ({', '.join(SUFFIXES)})"
_FAULTS = (
    *(OSError, SyntaxError, ValueError, EOFError),
    *(UnidentifiedImageError, Image.DecompressionBombError),
)
"""What Pillow raises for a damaged or huge image."""


@dataclass(frozen=True)
class ImagePage:
    """A page of an image file; read on access."""

    path: Path
    name: str
    number: int = 0
    """Page within a TIFF file."""

    def image(self) -> Image.Image:
        """The page upright, on white instead of transparency. Disk access; raises DataError."""
        with _read_errors(self.path), Image.open(self.path) as found:
            found.seek(self.number)
            found.load()
            return _on_white(ImageOps.exif_transpose(found))


def is_image(path: Path) -> bool:
    """Whether a file has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read(path: Path) -> list[ImagePage]:
    """The pages of an image, or of all images of a folder at any depth, by name.

    Reads only heads of images. A TIFF file may have several pages. Raises DataError.
    """
    pages: list[ImagePage] = []
    for file in filter(is_image, data_files.files(path)):
        name = (file.relative_to(path) if file != path else Path(file.name)).with_suffix("")
        with _read_errors(file), Image.open(file) as found:
            count = getattr(found, "n_frames", 1) if found.format == "TIFF" else 1
        if count == 1:
            pages.append(ImagePage(file, name.as_posix()))
        else:
            pages += [ImagePage(file, f"{name.as_posix()} page {n + 1}", n) for n in range(count)]
    return pages


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    colored = image.convert("RGBA")
    white = Image.new("RGBA", colored.size, "white")
    return Image.alpha_composite(white, colored).convert("RGB")


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise DataError(
            f"'{path}' is not a readable image: {error}", where="data.path", allowed=ALLOWED
        ) from None
