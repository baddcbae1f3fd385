"""embedded:shapes: clips of rendered scenes, generated once and read from the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.common import cache
from models.event_seg.embedded.camera import Camera
from models.event_seg.embedded.scene import Scene
from models.event_seg.readers import labels
from models.event_seg.readers.recording import Events, spans

EPOCH = 1.5e9
"""Start of the clips in seconds since 1970, as in real recordings; a float32 step is 128 s."""
FRAMES_PER_SECOND = 30
CLIPS = 24
WINDOWS = 20
"""Windows per clip."""
STEP = 1.5
"""Maximum motion of a point between two rendered pictures, pixels."""
_VERSION = 1
_SEED = 0


@dataclass(frozen=True)
class Clip:
    """Rendered clip; implements Recording."""

    name: str
    sensor: tuple[int, int]
    windows: np.ndarray
    all_events: Events
    """Events of all windows; x and y uint16."""
    frames: np.ndarray
    """[window + 1, height, width], uint8."""
    format: str = "rendered"
    sensor_source: str = "model.size"
    second: float = 1.0
    unit: str = "s, by the generator"
    labels: str = labels.RECIPE

    @property
    def count(self) -> int:
        """Number of events."""
        return len(self.all_events)

    def events(self, index: int) -> Events:
        """Events of a window."""
        found = self.all_events[slice(*np.searchsorted(self.all_events.t, self.windows[index]))]
        return Events(found.t, found.x.astype(np.int32), found.y.astype(np.int32), found.p)

    def label(self, index: int, factor: int) -> np.ndarray:
        """Edges of the frame at the end of a window."""
        return labels.edges(self.frames[index + 1], factor)


def recordings(sensor: tuple[int, int]) -> list[Clip]:
    """Clips for a sensor of this height and width. Reads and writes the cache."""
    made_from = {"version": _VERSION, "sensor": sensor, "clips": CLIPS, "windows": WINDOWS}
    arrays = cache.arrays("event-shapes", made_from, lambda: _make(sensor))
    cuts = arrays["cuts"]
    frames = arrays["frames"].reshape(CLIPS, WINDOWS + 1, *sensor)
    clips = []
    for number in range(CLIPS):
        at = slice(cuts[number], cuts[number + 1])
        events = Events(*(arrays[key][at] for key in "txyp"))
        windows = spans(arrays["ends"][number])
        clips.append(Clip(f"clip {number:02}", sensor, windows, events, frames[number]))
    return clips


def _make(sensor: tuple[int, int]) -> dict[str, np.ndarray]:
    rngs = [np.random.default_rng((_SEED, number)) for number in range(CLIPS)]
    made = [_clip(rng, sensor, number) for number, rng in enumerate(rngs)]
    events = {key: np.concatenate([getattr(e, key) for e, _, _ in made]) for key in "txyp"}
    return events | {
        "cuts": np.cumsum([0] + [len(e) for e, _, _ in made]),
        "frames": np.concatenate([frames for _, frames, _ in made]),
        "ends": np.stack([ends for _, _, ends in made]),
    }


def _clip(
    rng: np.random.Generator, sensor: tuple[int, int], number: int
) -> tuple[Events, np.ndarray, np.ndarray]:
    scene = Scene(rng, sensor)
    steps = int(np.ceil(scene.speed / FRAMES_PER_SECOND / STEP))
    times = np.arange(WINDOWS * steps + 1) / (FRAMES_PER_SECOND * steps)
    frames = np.empty((WINDOWS + 1, *sensor), np.uint8)
    camera, found = None, []
    for i, time in enumerate(times):
        picture = scene.draw(time)
        if i % steps == 0:
            frames[i // steps] = np.rint(picture)
        if camera is None:
            camera = Camera(rng, picture)
            found.append(camera.noise(times[-1]))
        else:
            found.append(camera.observe(picture, times[i - 1], time))
    begin = EPOCH + 100 * number + rng.uniform(0, 1)
    t = begin + np.concatenate([e.t for e in found])
    order = np.argsort(t, kind="stable")
    fields = (np.concatenate([getattr(e, key) for e in found])[order] for key in "xyp")
    return Events(t[order], *fields), frames, begin + times[::steps]
