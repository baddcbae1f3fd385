import io

import numpy as np
import pytest
from PIL import Image

from gearshift.models.common.pictures import small


def test_a_large_picture_that_cannot_be_compressed_gets_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (720, 2560, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    found = small(file.getvalue(), 1000, 50_000)
    width, height = Image.open(io.BytesIO(found)).size
    assert 20_000 < len(found) <= 50_000 and width <= 1000
    assert width / height == pytest.approx(2560 / 720, rel=0.02)
