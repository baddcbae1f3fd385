import numpy as np
import pytest

from models.event_seg import embedded
from models.event_seg.config import SIZES


@pytest.fixture(scope="module")
def clips():
    return embedded.recordings(SIZES["tiny"].sensor)


def test_clips_are_deterministic(monkeypatch, tmp_path, clips):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "CLIPS", 2)
    again = embedded.recordings(SIZES["tiny"].sensor)
    for first, other in zip(clips[:2], again, strict=True):
        assert (first.frames == other.frames).all() and (first.windows == other.windows).all()
        for key in "txyp":
            assert (getattr(first.all_events, key) == getattr(other.all_events, key)).all()


def test_foreground_is_a_tenth_of_the_pixels(clips):
    share = [clip.label(i, 1).mean() for clip in clips for i in range(len(clip.windows))]
    assert 0.08 < np.mean(share) < 0.15


def test_events_lie_at_edges_that_move(clips):
    near = far = 0
    for clip in clips:
        for index in range(len(clip.windows)):
            events, label = clip.events(index), clip.label(index, 1)
            hits = label[events.y, events.x].mean() if len(events) else 0
            near, far = near + hits, far + label.mean()
    assert near > 3 * far
