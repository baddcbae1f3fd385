import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gearshift.models.common.family import save_facts
from gearshift.models.event_seg.formats import EVT2
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.event_seg.showing import TrainedOnEvents
from tests.models.tasks import saving_context

RECORDING = Path(__file__).parents[4] / "shared/data/event/evt2.raw"
pytestmark = pytest.mark.skipif(not RECORDING.is_file(), reason=f"{RECORDING} does not exist")


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The recording in a temporary folder."""
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "evt2.raw"
    path.symlink_to(RECORDING)
    return path


def test_a_real_recording_is_read_and_predicted_in_windows_of_the_training(
    make_task, sample, tmp_path
):
    whole = open_recording(sample, "evt2", EVT2, 10, trained=(1, 1))
    events = whole.all_events
    assert (len(events), (events.p > 0).sum(), whole.sensor) == (521_252, 185_861, (480, 640))
    assert (events.t[0], events.t[-1]) == (913_716_224, 913_812_095)
    window_ms = 1000 / 30
    save_facts(TrainedOnEvents(window_ms, (260, 346)), saving_context(tmp_path))
    task = make_task(tmp_path, downsample=2)
    task.setup_without_data()
    found = list(task.predict(task.build().eval(), sample))
    first, length = events.t[0], int(1e3 * window_ms)
    names = [f"evt2-{n:05d}" for n in range((events.t[-1] + 1 - first) // length)]
    assert [p.name for p in found] == names
    count = np.searchsorted(events.t, first + length)
    assert f"s: {count:,} events, foreground " in found[0].text
    mask = Image.open(io.BytesIO(found[0].files[".png"]))
    assert mask.size == (320, 240)
