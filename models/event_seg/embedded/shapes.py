"""The embedded recordings: clips of drawn scenes, made once and read from the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.common import cache
from models.event_seg.embedded.camera import Camera
from models.event_seg.embedded.scene import Scene
from models.event_seg.readers import labels
from models.event_seg.readers.recording import Events, spans

EPOCH = 1.5e9
"""About when the clips begin, in seconds since 1970, as real recordings do: float32 has steps of
128 s there."""
FRAMES_A_SECOND = 30
CLIPS = 24
WINDOWS = 20
"""Of a clip."""
STEP = 1.5
"""Pixels that a point moves between two pictures that are drawn, at most."""
_VERSION = 1
_SEED = 0


@dataclass(frozen=True)
class Clip:
    """See models/event_seg/readers/recording.py."""

    name: str
    sensor: tuple[int, int]
    windows: np.ndarray
    held: Events
    """All of them; x and y uint16."""
    frames: np.ndarray
    """[window + 1, height, width], uint8."""
    format: str = "drawn"
    sensor_source: str = "model.size"
    second: float = 1.0
    unit: str = "s, by the generator"
    labels: str = labels.RECIPE

    @property
    def count(self) -> int:
        """How many events it holds."""
        return len(self.held)

    def events(self, index: int) -> Events:
        """The events of a window."""
        found = self.held[slice(*np.searchsorted(self.held.t, self.windows[index]))]
        return Events(found.t, found.x.astype(np.int32), found.y.astype(np.int32), found.p)

    def label(self, index: int, factor: int) -> np.ndarray:
        """The edges of the frame that ends a window."""
        return labels.edges(self.frames[index + 1], factor)


def recordings(sensor: tuple[int, int]) -> list[Clip]:
    """The clips for a sensor of that height and width. Reads and writes the cache."""
    made_from = {"version": _VERSION, "sensor": sensor, "clips": CLIPS, "windows": WINDOWS}
    held = cache.arrays("event-shapes", made_from, lambda: _make(sensor))
    cuts = held["cuts"]
    frames = held["frames"].reshape(CLIPS, WINDOWS + 1, *sensor)
    clips = []
    for number in range(CLIPS):
        at = slice(cuts[number], cuts[number + 1])
        clips.append(
            Clip(
                name=f"clip {number:02}",
                sensor=sensor,
                windows=spans(held["ends"][number]),
                held=Events(*(held[key][at] for key in "txyp")),
                frames=frames[number],
            )
        )
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
    """Events, frames and the instants of the frames."""
    scene = Scene(rng, sensor)
    steps = int(np.ceil(scene.speed / FRAMES_A_SECOND / STEP))
    times = np.arange(WINDOWS * steps + 1) / (FRAMES_A_SECOND * steps)
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
            found.append(camera.see(picture, times[i - 1], time))
    begin = EPOCH + 100 * number + rng.uniform(0, 1)
    t = begin + np.concatenate([e.t for e in found])
    order = np.argsort(t, kind="stable")
    fields = (np.concatenate([getattr(e, key) for e in found])[order] for key in "xyp")
    return Events(t[order], *fields), frames, begin + times[::steps]
