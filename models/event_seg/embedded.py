"""Built-in data: clips of moving shapes, seen by a simulated event camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.random import Generator

from gearshift.models.common import cache
from gearshift.models.event_seg.readers.recording import (
    RECIPE,
    EventRecording,
    Events,
    Sides,
    edges,
    spans,
)

THRESHOLD = 0.2
DEVIATION = 0.03
"""Mean and standard deviation of the pixels' contrast thresholds, in log brightness."""
REFRACTORY_S = 1e-3
NOISE_HZ = 0.1
"""Noise events per pixel and second."""
HOT_SHARE = 2e-4
HOT_HZ = 100.0


class Camera:
    """Pixels of one clip. Sources: Rebecq et al., ESIM, 2018; Hu et al., v2e, 2021."""

    def __init__(self, rng: Generator, brightness: np.ndarray) -> None:
        """`brightness` [height, width] at time 0."""
        self._rng = rng
        self._width = brightness.shape[1]
        self._before = np.log(brightness.ravel())
        self._level = self._before.copy()
        thresholds = rng.normal(THRESHOLD, DEVIATION, brightness.size)
        self._threshold = np.clip(thresholds, 0.1, 0.3).astype(np.float32)
        self._fired = np.full(brightness.size, -np.inf, np.float32)

    def observe(self, brightness: np.ndarray, start: float, stop: float) -> Events:
        """Events of (start, stop], seconds, during a linear change to `brightness`."""
        after = np.log(brightness.ravel())
        crossings = np.trunc((after - self._level) / self._threshold)
        pixels = np.flatnonzero(crossings)
        sign = np.sign(crossings[pixels])
        count = np.abs(crossings[pixels]).astype(np.int64)
        parts = []
        for number in range(1, int(count.max(initial=0)) + 1):
            has = count >= number
            at = pixels[has]
            s = sign[has]
            level = self._level[at] + number * s * self._threshold[at]
            change = after[at] - self._before[at]
            share = np.clip((level - self._before[at]) / np.where(change == 0, 1, change), 0, 1)
            t = start + share * (stop - start)
            rested = t - self._fired[at] >= REFRACTORY_S
            self._fired[at[rested]] = t[rested]
            parts.append((t[rested], at[rested], s[rested].astype(np.int8)))
        self._level[pixels] += crossings[pixels] * self._threshold[pixels]
        self._before = after
        return self._gathered(parts)

    def noise(self, duration: float) -> Events:
        """Noise events of [0, duration) seconds, unsorted."""
        rng = self._rng
        pixels = self._fired.size
        hot = rng.choice(pixels, max(1, round(HOT_SHARE * pixels)), replace=False)
        shots = rng.integers(0, pixels, rng.poisson(NOISE_HZ * pixels * duration))
        from_hot = rng.choice(hot, rng.poisson(HOT_HZ * len(hot) * duration))
        at = np.concatenate((shots, from_hot))
        sign = rng.choice(np.array([-1, 1], np.int8), len(at))
        return self._gathered([(rng.uniform(0, duration, len(at)), at, sign)])

    def _gathered(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Events:
        parts = parts or [(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int8))]
        t, at, sign = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Events(
            t, (at % self._width).astype(np.uint16), (at // self._width).astype(np.uint16), sign
        )


SPEEDS = (20.0, 300.0)
"""Speed range of shapes, pixels per second."""
EGO_SPEEDS = (30.0, 150.0)
TURNS = 2.0
"""Maximum rotation, radians per second."""
PERIMETER = (6e-4, 1.5e-3)
"""Radius of a shape over the sensor area: edges are a tenth of the pixels at any size."""
STRIPES = (30.0, 50.0)
"""Distance of stripes in pixels."""
_WAVES = 2


@dataclass(frozen=True)
class MovingShape:
    """Textured polygon or ellipse with constant velocity and rotation, reflected at the border."""

    center: np.ndarray
    """[2]: x, y at time 0, in pixels."""
    velocity: np.ndarray
    angle: float
    turn: float
    radii: np.ndarray
    """Radii of an ellipse [2], or distances of a polygon's sides [side]."""
    is_ellipse: bool
    grey: float
    waves: np.ndarray
    """[wave, 4]: frequency along x and y in radians per pixel, phase, amplitude."""
    stripes: tuple[float, float]
    """Frequency in radians per pixel, and amplitude."""

    @property
    def reach(self) -> float:
        """Maximum distance of a point from the center, pixels."""
        sides = len(self.radii)
        return float(self.radii.max() * (1 if self.is_ellipse else 1 / np.cos(np.pi / sides)))


class Scene:
    """Two to five shapes on a textured background; half of the scenes have a moving camera."""

    def __init__(self, rng: Generator, sensor: Sides) -> None:
        """`sensor` is height and width."""
        self.sensor = sensor
        self.ground = float(rng.uniform(70, 150))
        self.ground_waves = _waves(rng, 2 * _WAVES, height=6.0, sensor=sensor)
        self.ego = _direction(rng) * rng.uniform(*EGO_SPEEDS) * (rng.random() < 0.5)
        self.shapes = [_shape(rng, sensor, self.ground) for _ in range(rng.integers(2, 6))]
        rows, columns = np.mgrid[: sensor[0], : sensor[1]].astype(np.float32)
        self._columns = columns
        self._rows = rows
        self._still = None if self.ego.any() else self._ground(0.0)

    @property
    def speed(self) -> float:
        """Speed of the fastest point, pixels per second."""
        ego = float(np.hypot(*self.ego))
        return ego + max(float(np.hypot(*s.velocity)) + abs(s.turn) * s.reach for s in self.shapes)

    def draw(self, time: float) -> np.ndarray:
        """Brightness at `time` seconds, float32 [height, width], above 0 and below 256."""
        picture = self._ground(time) if self._still is None else self._still.copy()
        for shape in self.shapes:
            self._add(picture, shape, time)
        return np.clip(picture, 4.0, 251.0)

    def _ground(self, time: float) -> np.ndarray:
        x, y = (self.ego * time).tolist()
        return self.ground + _texture(self.ground_waves, self._columns + x, self._rows + y)

    def _add(self, picture: np.ndarray, shape: MovingShape, time: float) -> None:
        height, width = self.sensor
        extent = np.array([width, height])
        around = np.mod(shape.center + (shape.velocity - self.ego) * time, 2 * extent)
        center = np.minimum(around, 2 * extent - around)  # reflected at the border
        reach = shape.reach + 2
        low = np.clip(np.floor(center - reach), 0, extent).astype(int)
        high = np.clip(np.ceil(center + reach), 0, extent).astype(int)
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        # Plain floats here and below: a numpy float64 would promote all pixels.
        x = self._columns[part] - float(center[0])
        y = self._rows[part] - float(center[1])
        angle = shape.angle + shape.turn * time
        cosine = math.cos(angle)
        sine = math.sin(angle)
        x, y = cosine * x + sine * y, cosine * y - sine * x
        cover = np.clip(0.5 - _distance(shape, x, y), 0, 1)  # border of one pixel
        texture = shape.grey + _texture(shape.waves, x, y)
        if shape.stripes[1]:
            texture += shape.stripes[1] * np.clip(8 * np.sin(shape.stripes[0] * x), -1, 1)
        picture[part] += cover * (texture - picture[part])


def _distance(shape: MovingShape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Approximate distance of each point from the shape in pixels; negative inside."""
    if shape.is_ellipse:
        a, b = shape.radii.tolist()
        return (np.hypot(x / a, y / b) - 1) * min(a, b)
    angles = np.arange(len(shape.radii)) * (2 * np.pi / len(shape.radii))
    sides = (
        x * math.cos(angle) + y * math.sin(angle) - radius
        for angle, radius in zip(angles, shape.radii.tolist(), strict=True)
    )
    return np.maximum.reduce(list(sides))


def _texture(waves: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    total = np.zeros_like(x)
    for along_x, along_y, phase, height in waves.tolist():
        total += height * np.sin(along_x * x + along_y * y + phase)
    return total


def _direction(rng: Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _waves(rng: Generator, count: int, height: float, sensor: Sides) -> np.ndarray:
    """Waves with lengths from a tenth of the sensor height to all of it."""
    frequency = 2 * np.pi / (sensor[0] * rng.uniform(0.1, 1.0, count))
    angle = rng.uniform(0, 2 * np.pi, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    heights = rng.uniform(0.3, 1.0, count) * height
    return np.stack((frequency * np.cos(angle), frequency * np.sin(angle), phase, heights), axis=1)


def _shape(rng: Generator, sensor: Sides, ground: float) -> MovingShape:
    size = sensor[0] * sensor[1] * rng.uniform(*PERIMETER)
    is_ellipse = bool(rng.random() < 0.4)
    sides = 2 if is_ellipse else int(rng.integers(3, 8))
    step = rng.uniform(60, 110) * rng.choice([-1, 1])
    grey = ground + step if 20 <= ground + step <= 235 else ground - step
    return MovingShape(
        center=rng.uniform(0, 1, 2) * sensor[::-1],
        velocity=_direction(rng) * rng.uniform(*SPEEDS),
        angle=float(rng.uniform(0, 2 * np.pi)),
        turn=float(rng.uniform(-TURNS, TURNS)),
        radii=size * rng.uniform(0.6, 1.0, sides),
        is_ellipse=is_ellipse,
        grey=float(np.clip(grey, 20, 235)),
        waves=_waves(rng, _WAVES, height=4.0, sensor=sensor),
        stripes=(2 * math.pi / rng.uniform(*STRIPES), 20.0 if rng.random() < 0.4 else 0.0),
    )


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


def recordings(sensor: Sides) -> list[EventRecording]:
    """Clips for a sensor of this height and width. Reads and writes the cache."""
    ends = _arrays(sensor)["ends"]
    clips = []
    for number in range(CLIPS):
        label = partial(_label, sensor, number)
        read = partial(_events, sensor, number)
        named = (
            "rendered",
            sensor,
            "model.size",
            spans(ends[number]),
            1.0,
            "s, by the generator",
            RECIPE,
        )
        clips.append(EventRecording(f"clip {number:02}", *named, read, label))
    return clips


@lru_cache
def _arrays(sensor: Sides) -> cache.Arrays:
    def make() -> cache.Arrays:
        rngs = [np.random.default_rng((_SEED, number)) for number in range(CLIPS)]
        made = [_clip(rng, sensor, number) for number, rng in enumerate(rngs)]
        events = {key: np.concatenate([getattr(e, key) for e, _, _ in made]) for key in "txyp"}
        return events | {
            "cuts": np.cumsum([0] + [len(e) for e, _, _ in made]),
            "frames": np.concatenate([frames for _, frames, _ in made]),
            "ends": np.stack([ends for _, _, ends in made]),
        }

    made_from = {"version": _VERSION, "sensor": sensor, "clips": CLIPS, "windows": WINDOWS}
    return cache.arrays("event-shapes", made_from, make)


def _events(sensor: Sides, number: int) -> cache.Arrays:
    arrays = _arrays(sensor)
    start, stop = arrays["cuts"][number : number + 2]
    return {key: arrays[key][start:stop] for key in "txyp"}


def _label(sensor: Sides, number: int, index: int, factor: int) -> np.ndarray:
    frames = _arrays(sensor)["frames"].reshape(CLIPS, WINDOWS + 1, *sensor)
    return edges(frames[number, index + 1], factor)


def _clip(rng: Generator, sensor: Sides, number: int) -> tuple[Events, np.ndarray, np.ndarray]:
    scene = Scene(rng, sensor)
    steps = int(np.ceil(scene.speed / FRAMES_PER_SECOND / STEP))
    times = np.arange(WINDOWS * steps + 1) / (FRAMES_PER_SECOND * steps)
    frames = np.empty((WINDOWS + 1, *sensor), np.uint8)
    camera = None
    parts = []
    for i, time in enumerate(times):
        picture = scene.draw(time)
        if i % steps == 0:
            frames[i // steps] = np.rint(picture)
        if camera is None:
            camera = Camera(rng, picture)
            parts.append(camera.noise(times[-1]))
        else:
            parts.append(camera.observe(picture, times[i - 1], time))
    begin = EPOCH + 100 * number + rng.uniform(0, 1)
    t = begin + np.concatenate([e.t for e in parts])
    order = np.argsort(t, kind="stable")
    fields = (np.concatenate([getattr(e, key) for e in parts])[order] for key in "xyp")
    return Events(t[order], *fields), frames, begin + times[::steps]
