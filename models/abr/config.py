"""Sizes, exact parameter counts and settings of the abr family."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from models.common.config import Fraction, OnBad, Section


@dataclass(frozen=True)
class Size:
    """The dimensions of one network: `base` channels at the full rate, doubled at each level."""

    base: int
    levels: int
    layers: int
    """Transformer layers of a decoder level; the bottleneck has two at every size."""
    heads: int
    states: int
    """States of each state space layer."""
    dropout: float = 0.1

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each encoder level, first to last."""
        return tuple(self.base * 2**level for level in range(self.levels))

    @property
    def parameters(self) -> int:
        """The exact number of parameters of the model."""
        return sum(by_block(self.base, self.levels, self.layers, self.states).values())


SIZES = {
    # No dropout: eight channels are too few.
    "tiny": Size(base=8, levels=2, layers=1, heads=2, states=8, dropout=0.0),
    "lite": Size(base=32, levels=2, layers=3, heads=8, states=64),
    "full": Size(base=64, levels=4, layers=3, heads=8, states=64),
}


Weight = Annotated[float, Field(ge=0)]
Epochs = Annotated[float, Field(ge=0, json_schema_extra={"unit": "epochs"})]


class LossSettings(Section):
    """Weights of the loss terms, and their form."""

    regression: Literal["mse", "huber"] = "mse"
    """Regression loss of signal, latency and amplitude; huber is linear beyond 1."""
    signal: Weight = 1.0
    """Loss weight of the reconstruction."""
    exists: Weight = 0.5
    """Loss weight of the existence of wave V."""
    latency: Weight = 1.0
    """Loss weight of the latency of wave V."""
    amplitude: Weight = 1.0
    """Loss weight of the amplitude of wave V."""
    # `class` is a keyword of Python, so only the key can have that name.
    class_: Annotated[Weight, Field(alias="class")] = 1.5
    """Loss weight of the kind of hearing loss."""
    threshold: Weight = 0.8
    """Loss weight of the threshold."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each class label spread over all classes."""


class Curriculum(Section):
    """The epoch at which each loss term starts; earlier in short runs."""

    peak: Epochs = 5.0
    """Start of existence, latency and amplitude of wave V."""
    threshold: Epochs = 10.0
    """Start of the threshold."""
    class_: Annotated[Epochs, Field(alias="class")] = 3.0
    """Start of the hearing loss."""
    ramp: Epochs = 5.0
    """Length of the ramp of a loss term from 0 to its weight."""


class Model(Section):
    """A convolutional encoder and decoder with state space layers, attention and four heads."""

    family: str = "abr"
    """Model family."""
    size: str = "full"
    """Model size; see `list models`."""
    loss: LossSettings = LossSettings()
    curriculum: Curriculum = Curriculum()


class Data(Section):
    """Averaged responses to train on."""

    path: str = "embedded:patients"
    """A file or folder of responses: EPL text, a table (CSV, XLSX), EDF or EEGLAB; or
    embedded:patients, embedded:few-patients."""
    control: Literal["real", "noise", "noise-signal"] = "real"
    """Noise control. noise: exchange signal and examination facts between patients; the score must
    fall to chance. noise-signal: exchange the signal only; reported only."""
    on_bad: OnBad = "stop"
    fraction: Fraction = 1.0
    split: Literal["auto", "patient", "level"] = "auto"
    """Unit of the split: a patient, or a level of a single recording. auto: the level if there is
    only one recording."""
    shares: Literal["balanced", "clinical"] = "balanced"
    """Frequency of each hearing loss among the embedded patients."""
    sweeps: Annotated[int, Field(ge=2)] = 1000
    """Sweeps of a recording to average into one response."""
    reject_uv: Annotated[float, Field(gt=0, json_schema_extra={"unit": "microvolts"})] = 40.0
    """Exclude sweeps beyond this amplitude from the average."""
    channel: str | None = None
    """Channel of a recording. Default: its first EEG channel."""


POINTS = 200
"""Samples of a response, at every size."""
STATIC = 4
"""Examination facts: age, level, rate, Fmp."""
CONDITION = 8
"""Width of the condition computed from these facts."""
CLASSES = 5
MAX_DISTANCE = 32
"""Largest relative position of self-attention; larger distances share its embedding."""


def by_block(base: int, levels: int, layers: int, states: int) -> dict[str, int]:
    """The number of parameters of each block, in the order of the forward pass."""
    widths = [base * 2**level for level in range(levels)]
    skips = [base, *widths[:-1]]
    blocks = {"static": linear(STATIC, CONDITION, CONDITION) + 2 * CONDITION}
    blocks["input"] = _conv_block(1, base, 7)
    for level, (before, width) in enumerate(zip(skips, widths, strict=True)):
        blocks[f"encoder.{level}"] = _encoder(before, width, states)
    blocks["bottleneck"] = _bottleneck(widths[-1], states)
    before = widths[-1]
    for level, (width, skip) in enumerate(zip(widths[::-1], skips[::-1], strict=True)):
        blocks[f"decoder.{level}"] = _decoder(before, width, skip, layers)
        before = width
    blocks["output"] = _conv_block(base, base, 7)
    return blocks | {f"heads.{name}": count for name, count in _heads(base).items()}


def linear(*widths: int) -> int:
    """Parameters of consecutive linear layers with biases."""
    return sum(a * b + b for a, b in pairwise(widths))


def _conv_block(inputs: int, outputs: int, kernel: int) -> int:
    middle = max(inputs, outputs)
    convolutions = kernel * inputs * middle + middle + kernel * middle * outputs + outputs
    residual = 0 if inputs == outputs else linear(inputs, outputs)
    return convolutions + 2 * outputs + residual


def _state_space(width: int, states: int) -> int:
    return 3 * states + 2 * states * width + 4 * width


def _film(width: int) -> int:
    trunk = linear(CONDITION, width) + 2 * width + linear(width, width) + 2 * width
    return trunk + 4 * linear(width, width) + 2 * width + CONDITION


def _pooling(width: int) -> int:
    return linear(width, width // 2, 1)


def _attention(width: int, bias: bool) -> int:
    return 4 * width**2 + (4 if bias else 1) * width


def _encoder_layer(width: int, hidden: int) -> int:
    return _attention(width, bias=True) + linear(width, hidden, width) + 4 * width


def _positions(width: int) -> int:
    return (2 * MAX_DISTANCE + 1) * width


def _encoder(before: int, width: int, states: int) -> int:
    strided = 3 * width**2 + width + 2 * width
    blocks = 2 * _conv_block(width, width, 3) + strided + 2 * _state_space(width, states)
    return blocks + _film(width) + linear(before, width) + 2 * width


def _bottleneck(width: int, states: int) -> int:
    layers = 2 * _encoder_layer(width, 4 * width) + 2 * width + _positions(width)
    joined = linear(2 * width, 2 * width, width)
    return _state_space(width, states) + layers + joined + _film(width) + 2 * width


def _decoder(before: int, width: int, skip: int, layers: int) -> int:
    layer = 2 * _attention(width, bias=False) + linear(width, 4 * width, width) + 6 * width
    transformer = layers * (layer + _film(width)) + _positions(width) + 2 * width
    mixers = linear(width, 4 * width, width) + linear(width, 2 * width, width)
    joined = 3 * (before + skip) * width + width
    pooled = _pooling(skip) + linear(skip, width) + 2 * width
    memory, last = linear(width, width), 3 * width**2 + width
    return transformer + mixers + joined + pooled + memory + last + 6 * width


def _heads(base: int) -> dict[str, int]:
    half, pooling = base // 2, _pooling(base)
    two = 2 * linear(base, base)
    shape = 2 * _encoder_layer(base, 2 * base) + pooling + linear(base, 2 * base, 2 * base, POINTS)
    return {
        "signal": shape + (7 * 16 + 16) + (5 * 16 * 8 + 8) + (3 * 8 + 1),
        "peak": pooling + two + linear(base, half, 1) + 2 * linear(base, base, half, 1),
        "class": pooling + two + 4 * base + linear(base, half, CLASSES) + 1,
        "threshold": pooling + linear(base, base, half, 1),
    }
