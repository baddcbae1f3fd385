import pytest

from models.event_seg import embedded
from models.event_seg.config import SIZES


@pytest.fixture(scope="module")
def clips():
    return embedded.recordings(SIZES["tiny"].sensor)


def test_events_lie_at_edges_that_move(clips):
    near = far = 0
    for clip in clips:
        for index in range(len(clip.windows)):
            events, label = clip.events(index), clip.label(index, 1)
            hits = label[events.y, events.x].mean() if len(events) else 0
            near, far = near + hits, far + label.mean()
    assert near > 3 * far
