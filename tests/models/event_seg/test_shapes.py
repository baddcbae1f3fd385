import numpy as np
import pytest

from models.event_seg import embedded
from models.event_seg.config import SIZES
from models.event_seg.embedded import REFRACTORY_S, Camera, Scene


@pytest.fixture(scope="module")
def clips():
    return embedded.recordings(SIZES["tiny"].sensor)


def test_clips_are_deterministic(monkeypatch, tmp_path, clips):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path))
    again = embedded.recordings(SIZES["tiny"].sensor)
    for first, other in zip(clips, again, strict=True):
        assert (first.frames == other.frames).all() and (first.windows == other.windows).all()
        for key in "txyp":
            assert (getattr(first.all_events, key) == getattr(other.all_events, key)).all()


def test_times_are_ascending_seconds_since_1970(clips):
    for clip in clips:
        assert clip.all_events.t.dtype == np.float64 and (np.diff(clip.all_events.t) >= 0).all()
        assert 1.5e9 <= clip.windows.min() < 1.5e9 + 1e4
        assert np.diff(clip.windows, axis=1) == pytest.approx(1 / 30, abs=1e-6)


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


def test_about_half_of_the_scenes_are_seen_by_a_moving_camera():
    scenes = [Scene(np.random.default_rng(i), (20, 30)) for i in range(200)]
    assert 70 < sum(bool(scene.ego.any()) for scene in scenes) < 130
    assert {len(scene.shapes) for scene in scenes} == {2, 3, 4, 5}
    speeds = [np.hypot(*shape.velocity) for scene in scenes for shape in scene.shapes]
    assert min(speeds) >= 20 and max(speeds) <= 300


def test_a_pixel_fires_once_for_each_threshold_that_its_log_brightness_crosses():
    dark, bright = np.full((1, 50), 50.0, np.float32), np.full((1, 50), 100.0, np.float32)
    camera = Camera(np.random.default_rng(0), dark)
    up = camera.observe(bright, 0.0, 1.0)
    expected = np.floor(np.log(2) / camera._threshold)
    assert (np.bincount(up.x, minlength=50) == expected).all() and (up.p == 1).all()
    down = camera.observe(dark, 1.0, 2.0)
    assert (down.p == -1).all() and (down.t > 1).all() and len(down) >= len(up) - 50
    first = up.t[up.x == 7][0]
    assert first == pytest.approx(camera._threshold[7] / np.log(2), rel=1e-3)


def test_a_pixel_rests_after_each_event():
    dark, bright = np.full((4, 5), 10.0, np.float32), np.full((4, 5), 250.0, np.float32)
    camera = Camera(np.random.default_rng(0), dark)
    events = camera.observe(bright, 0.0, 0.004)
    for pixel in range(20):
        t = events.t[events.y.astype(int) * 5 + events.x == pixel]
        assert (np.diff(t) >= REFRACTORY_S * (1 - 1e-6)).all() and 1 < len(t) <= 5


def test_noise_and_hot_pixels_fire_without_a_cause():
    camera = Camera(np.random.default_rng(0), np.full((100, 100), 50.0, np.float32))
    noise = camera.noise(20.0)
    counts = np.sort(np.bincount(noise.y.astype(int) * 100 + noise.x, minlength=10_000))
    assert (counts > 1000).sum() == 2
    assert counts[:-2].mean() / 20 == pytest.approx(0.1, rel=0.05)
