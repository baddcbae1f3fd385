import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.event_seg import embedded
from gearshift.models.event_seg.config import SIZES, Data
from gearshift.models.event_seg.dataset import read
from gearshift.models.event_seg.formats import BY_ENCODING, MVSEC, recognize
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.event_seg.readers.recording import downsample_mask, edges
from tests.models.errors import error_of
from tests.models.event_seg.writers import (
    HEADERS,
    random_events,
    write_masks,
    write_mvsec,
    write_raw,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "all" / "deep").mkdir(parents=True)
    return tmp_path / "all"


def write(path, events=None, encoding="EVT2"):
    """A recording with masks."""
    write_masks(path, [1000, 2000])
    return write_raw(path, random_events(50, 4000) if events is None else events, encoding)


def found(path, on_bad="stop"):
    return read(Data(path=str(path), on_bad=on_bad), (48, 64))


def test_a_recording_under_two_names_is_read_once(folder):
    for name in ("a.raw", "b.raw", "deep/c.raw"):
        write(folder / name, random_events(50, 4000))
    write(folder / "d.raw", random_events(50, 4000, seed=1))  # of the same size
    recordings, facts = found(folder)
    assert [recording.name for recording in recordings] == ["a.raw", "d.raw"]
    assert "b.raw" in facts["copies"] and "deep/c.raw" in facts["copies"]


def test_each_format_is_recognized_by_its_first_bytes(folder):
    events = random_events(50, 4000)
    assert recognize(write_mvsec(folder / "x.hdf5", frames=2)) == MVSEC
    for encoding in HEADERS:
        path = folder / ("a.dat" if encoding == "DAT" else f"{encoding}.bin")
        form = recognize(write(path, events, encoding))
        assert form == BY_ENCODING[encoding] == open_recording(path, "a", form).format
    assert recognize(folder) == BY_ENCODING["EVT2"]
    (folder / "deep" / "text.raw").write_text("% of people\n")
    assert recognize(folder / "deep") is None


def test_a_folder_gives_its_recordings_by_name_at_any_depth_without_companions(folder):
    for seed, name in enumerate(("b.raw", "deep/a.raw")):
        write(folder / name, random_events(50, 4000, seed=seed))
    recordings, facts = found(folder)
    assert [recording.name for recording in recordings] == ["b.raw", "deep/a.raw"]
    assert facts["ignored_files"] == 0
    assert recordings[1].labels == "masks of a_masks.h5"
    other = folder.with_name("other")
    other.mkdir()
    for name in ("outdoor_day1_data.hdf5", "outdoor_day1_gt.hdf5"):
        write_mvsec(other / name, frames=3)
    (other / "notes.txt").write_text("no recording")
    (recording,), facts = found(other)
    assert recording.name == "outdoor_day1_data.hdf5" and facts["ignored_files"] == 1
    assert recognize(other / "outdoor_day1_gt.hdf5") is None


def test_an_invalid_recording_is_counted_in_a_folder_and_an_error_if_alone(folder):
    write(folder / "good.raw")
    broken = write(folder / "broken.raw")
    broken.write_bytes(broken.read_bytes()[:-1])
    recordings, facts = found(folder, "skip")
    assert [recording.name for recording in recordings] == ["good.raw"]
    assert facts["skipped_recordings"] == 1 and "broken.raw" in facts["skipped"][0]
    error = error_of(found, folder)
    assert "1 of 2 recordings cannot be used" in str(error)
    assert "'broken.raw' is truncated" in str(error)
    with pytest.raises(DataError, match="truncated"):
        found(broken)


def test_an_edge_is_a_band_around_where_brightness_steps():
    frame = np.full((40, 60), 30, np.uint8)
    frame[:, 30:] = 200
    found = edges(frame, 1)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
    columns = np.flatnonzero(found[20])
    assert len(columns) == 5 and 28 <= columns.mean() <= 31
    assert not edges(np.full((40, 60), 30, np.uint8), 1).any()


def test_a_downsampled_mask_keeps_foreground():
    for cells, merged in (
        ([0, 0, 0, 0], 0),
        ([0, 1, 0, 0], 1),
        ([255, 1, 0, 0], 1),
        ([255, 0, 0, 0], 255),
    ):
        mask = np.array(cells, np.uint8).reshape(2, 2)
        wide = np.pad(mask, ((0, 1), (0, 1)))  # a remainder smaller than a pixel
        assert downsample_mask(wide, 2).tolist() == [[merged]], cells
        assert (downsample_mask(wide, 1) == wide).all()


def test_events_lie_at_edges_that_move():
    near = far = 0
    for clip in embedded.recordings(SIZES["tiny"].sensor):
        for index in range(len(clip.windows)):
            events, label = clip.events(index), clip.label(index, 1)
            hits = label[events.y, events.x].mean() if len(events) else 0
            near, far = near + hits, far + label.mean()
    assert near > 3 * far
