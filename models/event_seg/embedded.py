"""Built-in data: clips of moving shapes, seen by a simulated event camera."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from gearshift.models.common import array_file, cache
from gearshift.models.event_seg.readers.recording import RECIPE, EventRecording, Sides, edges, spans

THRESHOLD = 0.2
DEVIATION = 0.03
"""Mean and standard deviation of the pixels' contrast thresholds, in log brightness."""
REFRACTORY_S = 1e-3
NOISE_HZ = 0.1
"""Noise events per pixel and second."""
HOT_SHARE = 2e-4
HOT_HZ = 100.0


class Camera:
    """Pixels of one clip. Sources: Rebecq et al., ESIM, 2018; Hu et al., v2e, 2021.

    Events are arrays [3, event]: time in seconds, pixel, numbered row by row, and sign.
    """

    def __init__(
        self,
        rng: Generator,
        brightness: ndarray,
    ) -> None:
        """`brightness` [height, width] at time 0."""
        self._rng = rng
        self._before = np.log(brightness.ravel())
        self._level = self._before.copy()
        self._threshold = np.clip(
            rng.normal(THRESHOLD, DEVIATION, brightness.size), 0.1, 0.3
        ).astype(np.float32)
        self._fired_at = np.full(brightness.size, -np.inf, np.float32)

    def observe(
        self,
        brightness: ndarray,
        start: float,
        stop: float,
    ) -> Iterator[ndarray]:
        """Events of (start, stop], seconds, during a linear change to `brightness`.

        First the first event of each pixel, then the second ones.
        """
        after = np.log(brightness.ravel())
        crossings = np.trunc((after - self._level) / self._threshold)
        counts = np.abs(crossings)
        for number in range(1, int(counts.max()) + 1):
            at = np.flatnonzero(counts >= number)
            sign = np.sign(crossings[at])
            level = self._level[at] + number * sign * self._threshold[at]
            before = self._before[at]
            change = after[at] - before
            change[change == 0] = 1
            share = np.clip((level - before) / change, 0, 1)
            t = start + share * (stop - start)

            # A pixel that has just fired is blind for a while.
            is_rested = t - self._fired_at[at] >= REFRACTORY_S
            self._fired_at[at[is_rested]] = t[is_rested]
            yield np.stack((t, at, sign))[:, is_rested]
        self._level += crossings * self._threshold
        self._before = after

    def noise(self, duration: float) -> ndarray:
        """Noise events of [0, duration) seconds, unsorted."""
        rng = self._rng
        pixels = self._fired_at.size
        hot = rng.choice(pixels, max(1, round(HOT_SHARE * pixels)), replace=False)
        shots = rng.integers(0, pixels, rng.poisson(NOISE_HZ * pixels * duration))
        from_hot = rng.choice(hot, rng.poisson(HOT_HZ * len(hot) * duration))
        at = np.concatenate((shots, from_hot))
        signs = rng.choice([-1, 1], len(at))
        return np.stack((rng.uniform(0, duration, len(at)), at, signs))


SPEEDS = (20.0, 300.0)
"""Speed range of shapes, pixels per second."""
EGO_SPEEDS = (30.0, 150.0)
TURNS = 2.0
"""Maximum rotation, radians per second."""
PERIMETER = (6e-4, 1.5e-3)
"""Radius of a shape over the sensor area: edges are a tenth of the pixels at any size."""
STRIPES = (30.0, 50.0)
"""Distance of stripes in pixels."""


class MovingShape:
    """Textured polygon or ellipse with constant velocity and rotation, reflected at the border."""

    def __init__(
        self,
        rng: Generator,
        sensor: Sides,
        ground: float,
    ) -> None:
        """For a background of brightness `ground`; `sensor` is height and width."""
        # Drawn in this order: another one would draw other clips.
        size = sensor[0] * sensor[1] * rng.uniform(*PERIMETER)
        self.is_ellipse = rng.random() < 0.4
        sides = 2 if self.is_ellipse else rng.integers(3, 8)
        step = rng.uniform(60, 110) * rng.choice([-1, 1])
        grey = ground + step
        if not 20 <= grey <= 235:
            grey = ground - step
        self.grey = float(np.clip(grey, 20, 235))
        self.center = rng.uniform(0, 1, 2) * sensor[::-1]
        """x and y at time 0, in pixels."""
        self.velocity = _direction(rng) * rng.uniform(*SPEEDS)
        self.angle = rng.uniform(0, 2 * np.pi)
        self.turn = rng.uniform(-TURNS, TURNS)
        self.radii = size * rng.uniform(0.6, 1.0, sides)
        """Radii of an ellipse [2], or distances of a polygon's sides [side]."""
        self.waves = _waves(rng, 2, 4.0, sensor)
        self.stripes = 2 * math.pi / rng.uniform(*STRIPES)
        """Frequency in radians per pixel."""
        self.has_stripes = rng.random() < 0.4

        reach = float(self.radii.max())
        if not self.is_ellipse:
            reach /= math.cos(math.pi / sides)
        self.reach = reach
        """Maximum distance of a point from the center, pixels."""
        self.speed = math.hypot(*self.velocity) + abs(self.turn) * reach
        """Speed of its fastest point, pixels per second."""

    def add_to(
        self,
        picture: ndarray,
        time: float,
        ego: ndarray,
    ) -> None:
        """Draw the shape at `time` seconds into `picture`, for a camera of the velocity `ego`."""
        extent = np.array(picture.shape[::-1])
        around = np.mod(
            self.center + (self.velocity - ego) * time,
            2 * extent,
        )
        center = np.minimum(around, 2 * extent - around)  # reflected at the border

        # Only the pixels near the shape change.
        reach = self.reach + 2
        bounds = (np.floor(center - reach), np.ceil(center + reach))
        (left, top), (right, bottom) = np.clip(bounds, 0, extent).astype(int)
        rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
        # Plain floats here and below: a numpy float64 would promote all pixels.
        across = columns - float(center[0])
        down = rows - float(center[1])
        angle = self.angle + self.turn * time
        cosine = math.cos(angle)
        sine = math.sin(angle)
        x = cosine * across + sine * down
        y = cosine * down - sine * across
        cover = np.clip(0.5 - self._distance(x, y), 0, 1)  # border of one pixel
        texture = self.grey + _texture(self.waves, x, y)
        if self.has_stripes:
            texture += 20.0 * np.clip(8 * np.sin(self.stripes * x), -1, 1)
        part = picture[top:bottom, left:right]
        part += cover * (texture - part)

    def _distance(
        self,
        x: ndarray,
        y: ndarray,
    ) -> ndarray:
        """Approximate distance of each point from the shape in pixels; negative inside."""
        radii = self.radii.tolist()
        if self.is_ellipse:
            a, b = radii
            return (np.hypot(x / a, y / b) - 1) * min(a, b)
        distances = []
        for number, radius in enumerate(radii):
            angle = number * (2 * np.pi / len(radii))
            distances.append(x * math.cos(angle) + y * math.sin(angle) - radius)
        return np.maximum.reduce(distances)


class Scene:
    """Two to five shapes on a textured background; half of the scenes have a moving camera."""

    def __init__(
        self,
        rng: Generator,
        sensor: Sides,
    ) -> None:
        """`sensor` is height and width."""
        self.ground = rng.uniform(70, 150)
        self.ground_waves = _waves(rng, 4, 6.0, sensor)
        self.ego = _direction(rng) * rng.uniform(*EGO_SPEEDS)
        self.ego *= rng.random() < 0.5
        num_shapes = rng.integers(2, 6)
        self.shapes = [MovingShape(rng, sensor, self.ground) for _ in range(num_shapes)]
        self._rows, self._columns = np.indices(sensor, np.float32)

    @property
    def speed(self) -> float:
        """Speed of the fastest point, pixels per second."""
        return float(np.hypot(*self.ego)) + max(shape.speed for shape in self.shapes)

    def draw(self, time: float) -> ndarray:
        """Brightness at `time` seconds, float32 [height, width], above 0 and below 256."""
        x, y = (self.ego * time).tolist()
        picture = self.ground + _texture(self.ground_waves, self._columns + x, self._rows + y)
        for shape in self.shapes:
            shape.add_to(picture, time, self.ego)
        return np.clip(picture, 4.0, 251.0)


def _texture(
    waves: ndarray,
    x: ndarray,
    y: ndarray,
) -> ndarray:
    total = np.zeros_like(x)
    for along_x, along_y, phase, height in waves.tolist():
        total += height * np.sin(along_x * x + along_y * y + phase)
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
    """Waves with lengths from a tenth of the sensor height to all of it.

    [wave, 4]: frequency along x and y in radians per pixel, phase, amplitude.
    """
    frequency = 2 * np.pi / (sensor[0] * rng.uniform(0.1, 1.0, count))
    angle = rng.uniform(0, 2 * np.pi, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    return np.stack(
        (
            frequency * np.cos(angle),
            frequency * np.sin(angle),
            phase,
            rng.uniform(0.3, 1.0, count) * height,
        ),
        1,
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
        clips.append(
            EventRecording(
                name=f"clip {number:02}",
                format="rendered",
                sensor=sensor,
                sensor_source="model.size",
                windows=spans(ends),
                second=1.0,
                labels=RECIPE,
                read=partial(_events, sensor, number),
                label=partial(_label, sensor, number),
            )
        )
    return clips


@lru_cache
def _arrays(sensor: Sides) -> array_file.Arrays:
    """The events of all clips, `cuts` between the clips, `frames`, and `ends` of the windows."""
    made_from = {"version": _VERSION, "sensor": sensor, "clips": CLIPS, "windows": WINDOWS}
    return cache.arrays("event-shapes", made_from, partial(_render, sensor))


def _render(sensor: Sides) -> array_file.Arrays:
    clips = [_clip(np.random.default_rng((_SEED, n)), sensor, n) for n in range(CLIPS)]
    parts, frames, ends = zip(*clips, strict=True)
    t, x, y, p = np.concatenate(parts, axis=1)
    return {
        "t": t,
        "x": x.astype(np.uint16),
        "y": y.astype(np.uint16),
        "p": p.astype(np.int8),
        "cuts": np.cumsum([0, *(part.shape[1] for part in parts)]),
        "frames": np.concatenate(frames),
        "ends": np.stack(ends),
    }


def _events(
    sensor: Sides,
    number: int,
) -> array_file.Arrays:
    arrays = _arrays(sensor)
    start, stop = arrays["cuts"][number : number + 2]
    return {key: arrays[key][start:stop] for key in "txyp"}


@lru_cache(CLIPS * WINDOWS)  # finding edges takes as long as training
def _label(
    sensor: Sides,
    number: int,
    index: int,
    factor: int,
) -> ndarray:
    frames = _arrays(sensor)["frames"]
    return edges(frames[number * (WINDOWS + 1) + index + 1], factor)


def _clip(
    rng: Generator,
    sensor: Sides,
    number: int,
) -> tuple[ndarray, ndarray, ndarray]:
    """The events of a clip, float64 [4, event] of t, x, y and p; its frames, and their times."""
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
    t, pixel, sign = np.concatenate(parts, axis=1)
    y, x = np.divmod(pixel, sensor[1])
    events = np.stack((begin + t, x, y, sign))
    order = np.argsort(events[0], kind="stable")
    return events[:, order], np.rint(frames).astype(np.uint8), begin + times[::steps]
