import numpy as np
import pytest

from models.event_seg.readers.recording import downsample_mask, edges


def test_an_edge_is_a_band_around_where_brightness_steps():
    frame = np.full((40, 60), 30, np.uint8)
    frame[:, 30:] = 200
    found = edges(frame, 1)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    columns = np.flatnonzero(found[20])
    assert len(columns) == 5 and 28 <= columns.mean() <= 31
    assert not edges(np.full((40, 60), 30, np.uint8), 1).any()


def test_a_frame_is_averaged_before_edge_detection():
    frame = np.full((42, 63), 30, np.uint8)
    frame[:, 30:] = 200
    blocks = frame[:40, :60].reshape(10, 4, 15, 4).mean((1, 3)).round().astype(np.uint8)
    assert (edges(frame, 4) == edges(blocks, 1)).all()
    # Downsampled full-resolution edges would be a quarter as wide.
    assert edges(frame, 4)[5].sum() == 5
    checkers = (np.indices((40, 60)).sum(0) % 2 * 255).astype(np.uint8)
    assert not edges(checkers, 2).any()  # their mean is even


@pytest.mark.parametrize(
    ("cells", "merged"),
    [([0, 0, 0, 0], 0), ([0, 1, 0, 0], 1), ([255, 1, 0, 0], 1), ([255, 0, 0, 0], 255)],
)
def test_a_downsampled_mask_keeps_foreground(cells, merged):
    mask = np.array(cells, np.uint8).reshape(2, 2)
    wide = np.pad(mask, ((0, 1), (0, 1)))  # a remainder smaller than a pixel
    assert downsample_mask(wide, 2).tolist() == [[merged]]
    assert (downsample_mask(wide, 1) == wide).all()
