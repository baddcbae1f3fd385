"""Reader of image files: pages without translations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from models.common import data_files
from models.common.pictures import count_pages, open_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
ALLOWED = f"images ({', '.join(SUFFIXES)})"


@dataclass(frozen=True)
class ImagePage:
    """A page of an image file; read on access."""

    path: Path
    name: str
    number: int = 0
    """Page within a TIFF file."""

    def image(self) -> Image.Image:
        """See models/common/pictures.py: open_picture."""
        return open_picture(self.path, page=self.number)


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
        count = count_pages(file)
        if count == 1:
            pages.append(ImagePage(file, name.as_posix()))
        else:
            pages += [ImagePage(file, f"{name.as_posix()} page {n + 1}", n) for n in range(count)]
    return pages
