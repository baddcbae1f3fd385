import io
from pathlib import Path

import pytest
from PIL import Image

from models.common import model_facts
from models.event_seg.prediction import TrainedOnEvents
from models.event_seg.readers.prophesee import RawRecording, read_events

RECORDING = Path(__file__).parents[4] / "shared/data/event/evt2.raw"
pytestmark = pytest.mark.skipif(not RECORDING.is_file(), reason=f"{RECORDING} does not exist")


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The recording in a temporary folder."""
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "evt2.raw"
    path.symlink_to(RECORDING)
    return path


def test_counts_and_times_are_known(sample):
    recording = RawRecording(sample, "evt2", 10, has_labels=False)
    index = recording.index
    assert (index.events, index.on, index.sensor) == (521_252, 185_861, (480, 640))
    assert (index.first[0], index.last[-1]) == (913_716_224, 913_812_095)
    assert recording.sensor_source == "events"


def test_a_recording_is_predicted_in_windows_of_the_training(make_task, sample, tmp_path):
    window_ms = 1000 / 30
    model_facts.save(TrainedOnEvents(window_ms, (260, 346)), tmp_path / "run")
    task = make_task(tmp_path / "run", downsample=2)
    task.setup_without_data()
    found = list(task.predict(task.build().eval(), sample))
    whole = RawRecording(sample, "evt2", 10, has_labels=False)
    first, last = int(whole.index.first[0]), int(whole.index.last[-1])
    length = int(1e3 * window_ms)
    assert [p.name for p in found] == [f"evt2-{n:05d}" for n in range((last + 1 - first) // length)]
    count = len(read_events(sample, whole.header, whole.index, first, first + length))
    assert f"s: {count:,} events, foreground " in found[0].text
    mask = Image.open(io.BytesIO(found[0].files[".png"]))
    assert mask.size == (320, 240)
