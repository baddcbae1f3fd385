import io

import numpy as np
import pytest
from PIL import Image

from models.event_seg.preview import draw
from models.event_seg.windows import Sample

META = {"recording": "night.raw", "frame": 7, "t0": 1.0, "t1": 1.0333, "events": 12345}


def pixels(picture):
    """Both halves, of the size of the window."""
    image = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
    times = len(image) // 20
    image = image[::times, ::times]
    return image[:, :30], image[:, 34:]


@pytest.fixture
def events():
    grid = np.zeros((10, 20, 30), np.float32)
    grid[:, 2:9, 5:12], grid[:, 12:18, 20:28] = 0.3, -0.3
    return grid


def test_brighter_is_red_darker_blue_and_the_label_beside_it(events):
    labels = np.zeros((20, 30), np.int64)
    labels[4:8], labels[15:] = 1, -100
    picture = draw(Sample(events, labels, None, META), 3)
    left, right = pixels(picture)
    assert left[5, 8].tolist() == [214, 39, 40] and left[15, 25].tolist() == [31, 119, 180]
    assert (left[0] == 255).all()
    assert (right[5] == 255).all() and (right[0] == 0).all() and (right[16] == 127).all()
    assert picture.name == "window_3" and picture.caption == (
        "night.raw, window 7: 12,345 events in 33.3 ms (red brighter, blue darker), and its label"
    )


def test_hidden_pixels_are_grey_beside_the_whole(events):
    hidden = np.zeros((20, 30), bool)
    hidden[:, 8:16] = True
    left, right = pixels(draw(Sample(events, np.zeros((2, 20, 30)), hidden, META), 1))
    assert (right[:, 8:16] == 127).all()
    assert (right[~hidden] == left[~hidden]).all() and (left[5, 10] == [214, 39, 40]).all()
