import numpy as np

from models.event_seg.readers.recording import downsample_mask, edges


def test_an_edge_is_a_band_around_where_brightness_steps():
    frame = np.full((40, 60), 30, np.uint8)
    frame[:, 30:] = 200
    found = edges(frame, 1)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    columns = np.flatnonzero(found[20])
    assert len(columns) == 5 and 28 <= columns.mean() <= 31
    assert not edges(np.full((40, 60), 30, np.uint8), 1).any()


def test_a_downsampled_mask_keeps_foreground():
    for cells, merged in (([0, 0, 0, 0], 0), ([0, 1, 0, 0], 1), ([255, 1, 0, 0], 1), ([255, 0, 0, 0], 255)):
        mask = np.array(cells, np.uint8).reshape(2, 2)
        wide = np.pad(mask, ((0, 1), (0, 1)))  # a remainder smaller than a pixel
        assert downsample_mask(wide, 2).tolist() == [[merged]], cells
        assert (downsample_mask(wide, 1) == wide).all()
