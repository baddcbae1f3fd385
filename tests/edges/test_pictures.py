"""A picture means the same in training and in use: upright, in 8 bits, on white; or one error."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.common.pictures import open_picture
from models.doc_translation import prediction
from models.doc_translation.readers import dota

_ORIENTATION, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 262, 339


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


def with_tag(tiff, tag, value):
    """A little-endian TIFF file with another value of a short tag."""
    at = next(at for at in range(len(tiff) - 8) if tiff[at : at + 8] == struct.pack("<HHI", tag, 3, 1))
    return tiff[: at + 8] + struct.pack("<H", value) + tiff[at + 10 :]


def png(depth, color, pixels, transparent):
    """A PNG file with the chunk tRNS. Source: PNG, ISO 15948, section 11."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *PAGE.shape[::-1], depth, color, 0, 0, 0)),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def ink(mode):
    """The page as black of different opacity."""
    clear = Image.new("L", (60, 80), 0)
    return Image.merge("LA", (clear, page().point(lambda grey: 255 - grey))).convert(mode)


def palette():
    """The page with a palette in which white is transparent black."""
    image = Image.fromarray(np.select([PAGE == 0, PAGE == 128], [1, 2]).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0, 128, 128, 128])
    return image


def cmyk_of_no_adobe():
    """A JPEG file of CMYK without the marker of Adobe: 255 is full ink."""
    inverted = Image.fromarray(255 - np.asarray(page().convert("RGB").convert("CMYK")), "CMYK")
    data = saved(inverted, "JPEG", quality=98)
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 16 :]


def clear_at(pixels, value):
    """The pixels in big-endian order, with `value` for white."""
    pixels = pixels.copy()
    pixels[PAGE == 255] = value
    return pixels.astype(">u2") if pixels.dtype == np.uint16 else pixels


CLEAR_COLOR = (65535, 1792, 9)
FRAMES = {"save_all": True, "append_images": [Image.new("L", (60, 80))]}
FILES = {
    "16 bits": saved(WIDE, "PNG"),
    "16 bits, big-endian": saved(Image.frombytes("I;16B", (60, 80), WIDE.astype(">u2").tobytes())),
    "16 bits of a scanner with 12": saved((WIDE // 16).astype(np.uint16), "PNG"),
    "16 bits, 0 is white": with_tag(saved(65535 - WIDE), _PHOTOMETRIC, 0),
    "16 bits, one value transparent": png(16, 0, clear_at(WIDE, 5), struct.pack(">H", 5)),
    "color of 16 bits, one transparent": png(16, 2, clear_at(np.stack([WIDE] * 3, -1), CLEAR_COLOR), struct.pack(">3H", *CLEAR_COLOR)),
    "PGM of 12 bits": b"P5 60 80 4095\n" + (WIDE // 16).astype(">u2").tobytes(),
    "32 bits, 31 used": saved((PAGE / 255 * (2**31 - 1)).astype(np.int32)),
    "32 bits, unsigned": with_tag(saved((WIDE.astype(np.uint32) * 65537).view(np.int32)), _SAMPLE_FORMAT, 1),
    "float from 0 to 1": saved((PAGE / 255).astype(np.float32)),
    "float, signed and large": saved((PAGE * 2e36 - 3e38).astype(np.float32)),
    "palette with transparency": saved(palette(), "PNG", transparency=bytes([0, 255, 255])),
    "CMYK of Adobe": saved(page().convert("RGB").convert("CMYK"), "JPEG", quality=98),
    "CMYK of others": cmyk_of_no_adobe(),
    "YCbCr": saved(page().convert("RGB").convert("YCbCr")),
    "color with opacity": saved(ink("RGBA"), "PNG"),
    "frames of a PNG": saved(page(), "PNG", **FRAMES),
}  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def differs(data):
    """The largest difference of a picture from the page, in [0, 255]."""
    shown = open_picture(io.BytesIO(data))
    assert shown.mode in ("L", "RGB") and shown.size == (60, 80)
    return int(np.abs(np.asarray(shown.convert("L")).astype(int) - PAGE).max())


def is_read_by_pillow(data):
    """Pillow 12.3 cannot read the TIFF in YCbCr that it writes."""
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:
        return False
    return True


def test_each_mode_shows_the_same_page():
    read = {name: data for name, data in FILES.items() if is_read_by_pillow(data)}
    assert {*FILES} - {*read} <= {"YCbCr"}
    apart = {name: differs(data) for name, data in read.items()}
    assert {name: largest for name, largest in apart.items() if largest > 2} == {}  # rounding


TURNED = {
    "JPEG": (page().convert("RGB"), "JPEG", {"quality": 98}),
    "TIFF of 16 bits": (Image.fromarray(WIDE), "TIFF", {}),
}


@pytest.mark.parametrize("name", TURNED)
def test_each_turn_of_exif_is_upright(name):
    image, form, options = TURNED[name]
    for turn, transposed in TURNS.items():
        exif = Image.Exif()
        exif[_ORIENTATION] = turn
        data = saved(image.transpose(transposed), form, exif=exif, **options)
        assert differs(data) <= 2, turn


@pytest.mark.parametrize("name", ["16 bits", "palette with transparency"])
def test_training_and_use_show_the_same_pixels(tmp_path, name):
    (tmp_path / "imgs").mkdir()
    names = {"train_name_list": ["a_1"], "valid_name_list": ["b_1"], "test_name_list": ["c_1"]}
    (tmp_path / "split_dataset.json").write_text(json.dumps(names))
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    turned = Image.open(io.BytesIO(FILES[name])).transpose(Image.Transpose.ROTATE_90)
    clear = {"transparency": bytes([0, 255, 255])} if turned.mode == "P" else {}
    (tmp_path / "zh_mmd").mkdir()
    for (name,) in names.values():
        (tmp_path / "zh_mmd" / f"{name}.mmd").write_text("正文")
        (tmp_path / "imgs" / f"{name}.png").write_bytes(saved(turned, "PNG", exif=exif, **clear))
    trained = dota.read(tmp_path, "zh", "file", "stop").pages[0].image()
    used = prediction.read(tmp_path / "imgs")[0].image()
    assert np.array_equal(np.asarray(trained), np.asarray(used))
    assert np.array_equal(np.asarray(trained.convert("L")), PAGE)
