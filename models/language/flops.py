"""Floating point operations of one sample, from the shapes of the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Shape:
    """What the count of operations depends on."""

    elements: int
    """See matrix_elements."""
    layers: int
    width: int


def matrix_elements(model: nn.Module) -> int:
    """Elements of all weights that are multiplied with each token, counted once each.

    An embedding is looked up, not multiplied, and is left out; where the output layer shares its
    weight, that weight is counted for the output layer. Scales of norms are left out.
    """
    weights = {
        id(weight): weight.numel()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
        if weight.dim() > 1
    }
    return sum(weights.values())


def per_sample(shape: Shape, time: float) -> float:
    """Operations of forward and backward over `time` tokens: 6·N·T + 12·L·d·T².

    Each weight takes a multiplication and an addition forward and twice that backward; attention
    takes 12·L·d·T a token, counted over the whole square although half of it is masked. Source:
    Chowdhery et al., PaLM, 2022, appendix B.
    """
    return 6.0 * shape.elements * time + 12.0 * shape.layers * shape.width * time * time
