"""The weights that training begins with."""

from __future__ import annotations

import torch
from torch import nn

from models.abr.network.attention import Attention, FeedForward
from models.abr.network.decoder import DecoderLevel
from models.abr.network.heads import ThresholdHead

QUIET = 0.1
"""Of what a residual branch adds at first."""
FIRST_THRESHOLD_DB = 20.0
"""What an untrained model says; from 0, where the slope of softplus ends, it would take long."""


@torch.no_grad()
def draw(model: nn.Module, keeps_bias: nn.Module) -> None:
    """Draw the linear layers and convolutions of `model` anew, so that a signal comes through.

    With torch's own first weights, sixty layers and their norms leave 9 % of the output to what
    differs between samples, and the rest to biases; with these, 60 %. Biases are 0 but for those
    of `keeps_bias`: only they tell a low trace from a high one, once it is normed. Source of the
    weights: Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural
    Networks, 2010.
    """
    kept = set(keeps_bias.modules())
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d) and module not in kept:
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        _begin_quietly(module)


def _begin_quietly(module: nn.Module) -> None:
    if isinstance(module, Attention):
        module.output.weight.mul_(QUIET)
    elif isinstance(module, FeedForward):
        module.last.weight.mul_(QUIET)
    elif isinstance(module, DecoderLevel):
        module.skip_norm.weight.fill_(QUIET)
    elif isinstance(module, ThresholdHead):
        module.last.bias.fill_(FIRST_THRESHOLD_DB)
