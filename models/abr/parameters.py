"""How many weights each block of the network has, by formula."""

from __future__ import annotations

from itertools import pairwise

from models.abr.layout import CLASSES, CONDITION, POINTS, RELATIVE, STATIC


def by_block(base: int, levels: int, layers: int, states: int) -> dict[str, int]:
    """The weights of each block, in the order of the forward pass; biases and norms counted."""
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
    """Linear layers one after the other, each with a bias."""
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
    return (2 * RELATIVE + 1) * width


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
