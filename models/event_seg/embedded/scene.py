"""Scene of moving shapes, rendered at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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
class Shape:
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

    def __init__(self, rng: np.random.Generator, sensor: tuple[int, int]) -> None:
        """`sensor` is height and width."""
        self.sensor = sensor
        self.ground = float(rng.uniform(70, 150))
        self.ground_waves = _waves(rng, 2 * _WAVES, height=6.0, sensor=sensor)
        self.ego = _direction(rng) * rng.uniform(*EGO_SPEEDS) * (rng.random() < 0.5)
        self.shapes = [_shape(rng, sensor, self.ground) for _ in range(rng.integers(2, 6))]
        rows, columns = np.mgrid[: sensor[0], : sensor[1]].astype(np.float32)
        self._columns, self._rows = columns, rows
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

    def _add(self, picture: np.ndarray, shape: Shape, time: float) -> None:
        height, width = self.sensor
        extent = np.array([width, height])
        center = _reflect(shape.center + (shape.velocity - self.ego) * time, extent)
        reach = shape.reach + 2
        low = np.clip(np.floor(center - reach), 0, extent).astype(int)
        high = np.clip(np.ceil(center + reach), 0, extent).astype(int)
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        # Plain floats here and below: a numpy float64 would promote all pixels.
        x, y = self._columns[part] - float(center[0]), self._rows[part] - float(center[1])
        angle = shape.angle + shape.turn * time
        cosine, sine = math.cos(angle), math.sin(angle)
        x, y = cosine * x + sine * y, cosine * y - sine * x
        cover = np.clip(0.5 - _distance(shape, x, y), 0, 1)  # border of one pixel
        texture = shape.grey + _texture(shape.waves, x, y)
        if shape.stripes[1]:
            texture += shape.stripes[1] * np.clip(8 * np.sin(shape.stripes[0] * x), -1, 1)
        picture[part] += cover * (texture - picture[part])


def _distance(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
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


def _reflect(position: np.ndarray, extent: np.ndarray) -> np.ndarray:
    around = np.mod(position, 2 * extent)
    return np.minimum(around, 2 * extent - around)


def _direction(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _waves(
    rng: np.random.Generator, count: int, height: float, sensor: tuple[int, int]
) -> np.ndarray:
    """Waves with lengths from a tenth of the sensor height to all of it."""
    frequency = 2 * np.pi / (sensor[0] * rng.uniform(0.1, 1.0, count))
    angle = rng.uniform(0, 2 * np.pi, count)
    phase, heights = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.3, 1.0, count) * height
    return np.stack((frequency * np.cos(angle), frequency * np.sin(angle), phase, heights), axis=1)


def _shape(rng: np.random.Generator, sensor: tuple[int, int], ground: float) -> Shape:
    size = sensor[0] * sensor[1] * rng.uniform(*PERIMETER)
    is_ellipse = bool(rng.random() < 0.4)
    sides = 2 if is_ellipse else int(rng.integers(3, 8))
    step = rng.uniform(60, 110) * rng.choice([-1, 1])
    grey = ground + step if 20 <= ground + step <= 235 else ground - step
    return Shape(
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
