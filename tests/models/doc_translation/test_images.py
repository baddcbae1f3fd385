import numpy as np
import pytest
import torch
from PIL import Image

from gearshift.models.doc_translation import images


def page(height=200, width=100, box=(30, 50, 60, 90), mode="L"):
    dots = np.full((height, width), 255, dtype=np.uint8)
    dots[box[1] : box[3], box[0] : box[2]] = 0
    return Image.fromarray(dots).convert(mode)


def test_margins_are_cropped_also_around_faded_ink_on_grey_paper():
    faded = Image.fromarray((np.asarray(page()) * 0.2 + 120).astype(np.uint8))
    for given in (page(), faded):
        assert images.without_margins(given).size == (30, 40)


def test_the_local_view_keeps_the_aspect_ratio_and_is_padded_with_white():
    view = images.local_view(page(box=(10, 10, 40, 20)), 96, 64)[0]
    rows, columns = np.flatnonzero((view < 128).any(1)), np.flatnonzero((view < 128).any(0))
    assert (len(columns), len(rows)) == (64, pytest.approx(64 / 3, abs=1))
    assert rows[0] == pytest.approx(96 - 1 - rows[-1], abs=1)
    assert (view[0] == 255).all()


def test_batches_are_normalized_as_each_encoder_was_trained():
    white = np.full((1, 4, 4), 255, dtype=np.uint8)
    colors = np.stack([np.full((4, 4), v, dtype=np.uint8) for v in (0, 51, 255)])
    whole, near = images.batches([(white, white), (colors, colors)])
    assert whole.shape == (2, 3, 4, 4) and whole.dtype == torch.float32
    assert whole[0].min() == 1 and whole[1, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])
    expected = [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert near[1, :, 0, 0].tolist() == pytest.approx(expected)
