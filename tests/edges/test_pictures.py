"""A picture means the same in training and in use: upright, in 8 bits, on white; or one error."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.ExifTags import Base

from gearshift.models.base import DataError
from gearshift.models.common.pictures import open_picture
from gearshift.models.doc_translation import showing
from gearshift.models.doc_translation.readers import dota


def page():
    """Black, grey and white in a shape that no turn and no mirror maps to itself."""
    sheet = Image.new("L", (60, 80), 255)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((10, 10, 20, 50), fill=0)
    draw.rectangle((30, 20, 50, 25), fill=128)
    return sheet


PAGE = np.asarray(page())
WIDE = PAGE.astype(np.uint16) * 257


def saved(image, form="TIFF", **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def unsigned(tiff):
    """A TIFF with the tag SampleFormat of unsigned numbers, which Pillow does not write for 32 bits."""
    signed, plain = (struct.pack("<HHIHH", 339, 3, 1, value, 0) for value in (2, 1))
    assert signed in tiff
    return tiff.replace(signed, plain)


def ink(mode):
    """The page as black of different opacity."""
    clear = Image.new("L", (60, 80), 0)
    return Image.merge("LA", (clear, page().point(lambda grey: 255 - grey))).convert(mode)


def palette():
    """The page with a palette in which white is transparent black."""
    image = Image.fromarray(np.select([PAGE == 0, PAGE == 128], [1, 2]).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0, 128, 128, 128])
    return image


FILES = {
    "16 bits": saved(WIDE, "PNG"),
    "PGM of 12 bits": b"P5 60 80 4095\n" + (WIDE // 16).astype(">u2").tobytes(),
    "palette with transparency": saved(palette(), "PNG", transparency=bytes([0, 255, 255])),
    "CMYK of Adobe": saved(page().convert("RGB").convert("CMYK"), "JPEG", quality=98),
    "color with opacity": saved(ink("RGBA"), "PNG"),
}  # fmt: skip
REFUSED = {
    "float": saved((PAGE / 255).astype(np.float32)),
    "32 bits": unsigned(saved(WIDE.astype(np.int32) * 9)),
    "signed": saved(PAGE.astype(np.int32) - 99, tiffinfo={339: 2}),
    "Lab": saved(Image.merge("LAB", [page(), page(), page()])),
}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
}


def differs(data):
    """The largest difference of a picture from the page, in [0, 255]."""
    shown = open_picture(io.BytesIO(data))
    assert shown.mode in ("L", "RGB") and shown.size == (60, 80)
    return int(np.abs(np.asarray(shown.convert("L")).astype(int) - PAGE).max())


def test_each_mode_shows_the_same_page():
    apart = {name: differs(data) for name, data in FILES.items()}
    assert {name: largest for name, largest in apart.items() if largest > 2} == {}  # rounding


@pytest.mark.parametrize("mode", REFUSED)
def test_a_mode_of_unknown_black_and_white_is_refused(mode):
    with pytest.raises(DataError):
        open_picture(io.BytesIO(REFUSED[mode]))


def test_cmyk_of_a_jpeg_without_the_mark_of_adobe_is_refused():
    marked = FILES["CMYK of Adobe"]
    at = marked.index(b"\xff\xee")
    plain = marked[:at] + marked[at + 2 + int.from_bytes(marked[at + 2 : at + 4], "big") :]
    assert Image.open(io.BytesIO(plain)).mode == "CMYK"
    with pytest.raises(DataError):
        open_picture(io.BytesIO(plain))


def test_each_turn_of_exif_is_upright():
    for turn, transposed in TURNS.items():
        exif = Image.Exif()
        exif[Base.Orientation] = turn
        image = page().convert("RGB").transpose(transposed)
        assert differs(saved(image, "JPEG", exif=exif, quality=98)) <= 2, turn


def test_training_and_use_show_the_same_pixels(tmp_path):
    (tmp_path / "imgs").mkdir()
    (tmp_path / "zh_mmd").mkdir()
    names = {"train_name_list": ["a_1"], "valid_name_list": ["b_1"], "test_name_list": ["c_1"]}
    (tmp_path / "split_dataset.json").write_text(json.dumps(names))
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    turned = Image.open(io.BytesIO(FILES["16 bits"])).transpose(Image.Transpose.ROTATE_90)
    for (name,) in names.values():
        (tmp_path / "zh_mmd" / f"{name}.mmd").write_text("正文")
        (tmp_path / "imgs" / f"{name}.png").write_bytes(saved(turned, "PNG", exif=exif))
    trained = dota.read(tmp_path, "zh", "file", "stop").pages[0].image()
    used = showing.read(tmp_path / "imgs")[0].image()
    assert np.array_equal(np.asarray(trained), np.asarray(used))
    assert np.array_equal(np.asarray(trained.convert("L")), PAGE)
