"""Built-in data: clips of moving shapes, seen by a simulated event camera."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from gearshift.models.common import array_file, cache
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

    def __init__(
        self,
        rng: Generator,
        brightness: ndarray,
    ) -> None:
        """`brightness` [height, width] at time 0."""
        self._rng = rng
        self._width = brightness.shape[1]
        self._before = np.log(brightness.ravel())
        self._level = self._before.copy()
        thresholds = rng.normal(THRESHOLD, DEVIATION, brightness.size)
        self._threshold = np.clip(thresholds, 0.1, 0.3).astype(np.float32)
        self._fired_at = np.full(brightness.size, -np.inf, np.float32)

    def observe(
        self,
        brightness: ndarray,
        start: float,
        stop: float,
    ) -> Iterator[Events]:
        """Events of (start, stop], seconds, during a linear change to `brightness`.

        First the first event of each pixel, then the second ones.
        """
        after = np.log(brightness.ravel())
        crossings = np.trunc((after - self._level) / self._threshold)
        pixels = np.flatnonzero(crossings)
        crossings = crossings[pixels]
        signs = np.sign(crossings)
        counts = np.abs(crossings).astype(np.int64)
        most = int(counts.max(initial=0))
        for number in range(1, most + 1):
            has_event = counts >= number
            at = pixels[has_event]
            sign = signs[has_event]
            step = number * sign * self._threshold[at]
            level = self._level[at] + step
            before = self._before[at]
            change = after[at] - before
            change[change == 0] = 1
            share = np.clip((level - before) / change, 0, 1)
            t = start + share * (stop - start)

            # A pixel that has just fired is blind for a while.
            is_rested = t - self._fired_at[at] >= REFRACTORY_S
            t = t[is_rested]
            at = at[is_rested]
            self._fired_at[at] = t
            yield self._events(t, at, sign[is_rested])
        self._level[pixels] += crossings * self._threshold[pixels]
        self._before = after

    def noise(self, duration: float) -> Events:
        """Noise events of [0, duration) seconds, unsorted."""
        rng = self._rng
        pixels = self._fired_at.size
        num_hot = max(1, round(HOT_SHARE * pixels))
        hot = rng.choice(pixels, num_hot, replace=False)
        num_shots = rng.poisson(NOISE_HZ * pixels * duration)
        shots = rng.integers(0, pixels, num_shots)
        num_from_hot = rng.poisson(HOT_HZ * num_hot * duration)
        from_hot = rng.choice(hot, num_from_hot)
        at = np.concatenate((shots, from_hot))
        signs = rng.choice([-1, 1], len(at))
        t = rng.uniform(0, duration, len(at))
        return self._events(t, at, signs)

    def _events(
        self,
        t: ndarray,
        at: ndarray,
        sign: ndarray,
    ) -> Events:
        """Events of the pixels `at`, numbered row by row."""
        y, x = np.divmod(at, self._width)
        return Events(
            t,
            x.astype(np.uint16),
            y.astype(np.uint16),
            sign.astype(np.int8),
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

    center: ndarray
    """[2]: x, y at time 0, in pixels."""
    velocity: ndarray
    angle: float
    turn: float
    radii: ndarray
    """Radii of an ellipse [2], or distances of a polygon's sides [side]."""
    is_ellipse: bool
    grey: float
    waves: ndarray
    """[wave, 4]: frequency along x and y in radians per pixel, phase, amplitude."""
    stripes: tuple[float, float]
    """Frequency in radians per pixel, and amplitude."""

    @property
    def reach(self) -> float:
        """Maximum distance of a point from the center, pixels."""
        reach = float(self.radii.max())
        if self.is_ellipse:
            return reach
        half_angle = math.pi / len(self.radii)
        return reach * (1 / math.cos(half_angle))

    @property
    def speed(self) -> float:
        """Speed of its fastest point, pixels per second."""
        along = float(np.hypot(*self.velocity))
        return along + abs(self.turn) * self.reach


class Scene:
    """Two to five shapes on a textured background; half of the scenes have a moving camera."""

    def __init__(
        self,
        rng: Generator,
        sensor: Sides,
    ) -> None:
        """`sensor` is height and width."""
        self.sensor = sensor
        self.ground = float(rng.uniform(70, 150))
        self.ground_waves = _waves(rng, 2 * _WAVES, 6.0, sensor)
        self.ego = _direction(rng) * rng.uniform(*EGO_SPEEDS)
        self.ego *= rng.random() < 0.5
        num_shapes = rng.integers(2, 6)
        self.shapes = [_shape(rng, sensor, self.ground) for _ in range(num_shapes)]
        height, width = sensor
        self._rows, self._columns = np.mgrid[:height, :width].astype(np.float32)
        self._still: ndarray | None = None
        if not self.ego.any():
            self._still = self._ground(0.0)

    @property
    def speed(self) -> float:
        """Speed of the fastest point, pixels per second."""
        speeds = [shape.speed for shape in self.shapes]
        return float(np.hypot(*self.ego)) + max(speeds)

    def draw(self, time: float) -> ndarray:
        """Brightness at `time` seconds, float32 [height, width], above 0 and below 256."""
        if self._still is None:
            picture = self._ground(time)
        else:
            picture = self._still.copy()
        for shape in self.shapes:
            self._add(picture, shape, time)
        return np.clip(picture, 4.0, 251.0)

    def _ground(self, time: float) -> ndarray:
        x, y = (self.ego * time).tolist()
        texture = _texture(
            self.ground_waves,
            self._columns + x,
            self._rows + y,
        )
        return self.ground + texture

    def _add(
        self,
        picture: ndarray,
        shape: MovingShape,
        time: float,
    ) -> None:
        extent = np.array(self.sensor[::-1])
        center = shape.center + (shape.velocity - self.ego) * time
        around = np.mod(center, 2 * extent)
        center = np.minimum(around, 2 * extent - around)  # reflected at the border

        # Only the pixels near the shape change.
        reach = shape.reach + 2
        low = np.floor(center - reach)
        high = np.ceil(center + reach)
        left, top = np.clip(low, 0, extent).astype(int)
        right, bottom = np.clip(high, 0, extent).astype(int)
        part = np.s_[top:bottom, left:right]
        # Plain floats here and below: a numpy float64 would promote all pixels.
        x = self._columns[part] - float(center[0])
        y = self._rows[part] - float(center[1])
        angle = shape.angle + shape.turn * time
        cosine = math.cos(angle)
        sine = math.sin(angle)
        x, y = (
            cosine * x + sine * y,
            cosine * y - sine * x,
        )
        cover = np.clip(0.5 - _distance(shape, x, y), 0, 1)  # border of one pixel
        texture = shape.grey + _texture(shape.waves, x, y)
        frequency, height = shape.stripes
        if height:
            stripes = np.sin(frequency * x)
            texture += height * np.clip(8 * stripes, -1, 1)
        picture[part] += cover * (texture - picture[part])


def _distance(
    shape: MovingShape,
    x: ndarray,
    y: ndarray,
) -> ndarray:
    """Approximate distance of each point from the shape in pixels; negative inside."""
    if shape.is_ellipse:
        a, b = shape.radii.tolist()
        return (np.hypot(x / a, y / b) - 1) * min(a, b)
    distances = []
    turn = 2 * np.pi / len(shape.radii)
    for number, radius in enumerate(shape.radii.tolist()):
        angle = number * turn
        along = x * math.cos(angle) + y * math.sin(angle)
        distances.append(along - radius)
    return np.maximum.reduce(distances)


def _texture(
    waves: ndarray,
    x: ndarray,
    y: ndarray,
) -> ndarray:
    total = np.zeros_like(x)
    for along_x, along_y, phase, height in waves.tolist():
        angle = along_x * x + along_y * y + phase
        total += height * np.sin(angle)
    return total


def _direction(rng: Generator) -> ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _waves(
    rng: Generator,
    count: int,
    height: float,
    sensor: Sides,
) -> ndarray:
    """Waves with lengths from a tenth of the sensor height to all of it."""
    length = sensor[0] * rng.uniform(0.1, 1.0, count)
    frequency = 2 * np.pi / length
    angle = rng.uniform(0, 2 * np.pi, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    heights = rng.uniform(0.3, 1.0, count) * height
    columns = (
        frequency * np.cos(angle),
        frequency * np.sin(angle),
        phase,
        heights,
    )
    return np.stack(columns, axis=1)


def _shape(
    rng: Generator,
    sensor: Sides,
    ground: float,
) -> MovingShape:
    size = sensor[0] * sensor[1] * rng.uniform(*PERIMETER)
    is_ellipse = bool(rng.random() < 0.4)
    if is_ellipse:
        sides = 2
    else:
        sides = int(rng.integers(3, 8))
    step = rng.uniform(60, 110) * rng.choice([-1, 1])
    grey = ground + step
    if not 20 <= grey <= 235:
        grey = ground - step
    # Drawn in this order: another one would draw other clips.
    return MovingShape(
        center=rng.uniform(0, 1, 2) * sensor[::-1],
        velocity=_direction(rng) * rng.uniform(*SPEEDS),
        angle=float(rng.uniform(0, 2 * np.pi)),
        turn=float(rng.uniform(-TURNS, TURNS)),
        radii=size * rng.uniform(0.6, 1.0, sides),
        is_ellipse=is_ellipse,
        grey=float(np.clip(grey, 20, 235)),
        waves=_waves(rng, _WAVES, 4.0, sensor),
        stripes=(
            2 * math.pi / rng.uniform(*STRIPES),
            20.0 if rng.random() < 0.4 else 0.0,
        ),
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
    clips = []
    for number, ends in enumerate(_arrays(sensor)["ends"]):
        clip = EventRecording(
            name=f"clip {number:02}",
            format="rendered",
            sensor=sensor,
            sensor_source="model.size",
            windows=spans(ends),
            second=1.0,
            unit="s, by the generator",
            labels=RECIPE,
            read=partial(_events, sensor, number),
            label=partial(_label, sensor, number),
        )
        clips.append(clip)
    return clips


@lru_cache
def _arrays(sensor: Sides) -> array_file.Arrays:
    """The events of all clips, `cuts` between the clips, `frames`, and `ends` of the windows."""
    return cache.arrays("event-shapes", _made_from(sensor), partial(_render, sensor))


def _made_from(sensor: Sides) -> dict[str, Any]:
    return {"version": _VERSION, "sensor": sensor, "clips": CLIPS, "windows": WINDOWS}


def _render(sensor: Sides) -> array_file.Arrays:
    events = []
    frames = []
    ends = []
    for number in range(CLIPS):
        rng = np.random.default_rng((_SEED, number))
        clip, clip_frames, clip_ends = _clip(rng, sensor, number)
        events.append(clip)
        frames.append(clip_frames)
        ends.append(clip_ends)
    return {
        **vars(_joined(events)),
        "cuts": np.cumsum([0, *map(len, events)]),
        "frames": np.concatenate(frames),
        "ends": np.stack(ends),
    }


def _joined(parts: Sequence[Events]) -> Events:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Events(*map(np.concatenate, columns))


def _events(sensor: Sides, number: int) -> array_file.Arrays:
    arrays = _arrays(sensor)
    start, stop = arrays["cuts"][number : number + 2]
    return {key: arrays[key][start:stop] for key in "txyp"}


def _label(
    sensor: Sides,
    number: int,
    index: int,
    factor: int,
) -> ndarray:
    return _labels(sensor, factor)[number, index]


@lru_cache
def _labels(sensor: Sides, factor: int) -> ndarray:
    """The labels of all windows, [clip, window, height, width]: they take as long as training."""
    facts = {**_made_from(sensor), "factor": factor, "recipe": RECIPE}
    arrays = cache.arrays("event-shapes-labels", facts, partial(_find_edges, sensor, factor))
    return np.asarray(arrays["labels"])


def _find_edges(sensor: Sides, factor: int) -> array_file.Arrays:
    frames = _arrays(sensor)["frames"].reshape(CLIPS, WINDOWS + 1, *sensor)
    labels = []
    for clip in frames:
        ends = clip[1:]
        labels.append([edges(frame, factor) for frame in ends])
    return {"labels": np.array(labels)}


def _clip(
    rng: Generator,
    sensor: Sides,
    number: int,
) -> tuple[Events, ndarray, ndarray]:
    """The events of a clip, its frames, and their times."""
    scene = Scene(rng, sensor)
    steps = int(np.ceil(scene.speed / FRAMES_PER_SECOND / STEP))
    times = np.arange(WINDOWS * steps + 1) / (FRAMES_PER_SECOND * steps)
    picture = scene.draw(times[0])
    camera = Camera(rng, picture)
    # The camera sees `steps` pictures for each frame: events between two are interpolated.
    frames = [picture]
    parts = [camera.noise(times[-1])]
    for i in range(1, len(times)):
        picture = scene.draw(times[i])
        parts.extend(camera.observe(picture, times[i - 1], times[i]))
        if i % steps == 0:
            frames.append(picture)

    begin = EPOCH + 100 * number + rng.uniform(0, 1)
    events = _joined(parts)
    events = replace(events, t=begin + events.t)
    events = events[np.argsort(events.t, kind="stable")]
    pixels = np.rint(frames).astype(np.uint8)
    return events, pixels, begin + times[::steps]
