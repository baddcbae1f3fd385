import numpy as np
import pytest

from models.event_seg.readers.labels import coarser, edges


def test_an_edge_is_a_band_around_where_brightness_steps():
    frame = np.full((40, 60), 30, np.uint8)
    frame[:, 30:] = 200
    found = edges(frame, 1)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    columns = np.flatnonzero(found[20])
    assert len(columns) == 5 and 28 <= columns.mean() <= 31
    assert not edges(np.full((40, 60), 30, np.uint8), 1).any()


def test_a_frame_is_averaged_before_edges_are_looked_for():
    frame = np.full((42, 63), 30, np.uint8)
    frame[:, 30:] = 200
    blocks = frame[:40, :60].reshape(10, 4, 15, 4).mean((1, 3)).round().astype(np.uint8)
    assert (edges(frame, 4) == edges(blocks, 1)).all()
    # Not edges found in full and made smaller, which would be a quarter as wide.
    assert edges(frame, 4)[5].sum() == 5
    checkers = (np.indices((40, 60)).sum(0) % 2 * 255).astype(np.uint8)
    assert not edges(checkers, 2).any()  # their mean is even


@pytest.mark.parametrize(
    ("cells", "one"),
    [([0, 0, 0, 0], 0), ([0, 1, 0, 0], 1), ([255, 1, 0, 0], 1), ([255, 0, 0, 0], 255)],
)
def test_a_coarser_mask_keeps_what_is_there(cells, one):
    mask = np.array(cells, np.uint8).reshape(2, 2)
    wide = np.pad(mask, ((0, 1), (0, 1)))  # a rest that makes no whole pixel
    assert coarser(wide, 2).tolist() == [[one]]
    assert (coarser(wide, 1) == wide).all()
