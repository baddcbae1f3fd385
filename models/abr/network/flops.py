"""How much computing one response takes."""

from __future__ import annotations

import torch
from torch.nn import Module
from torch.utils.flop_counter import FlopCounterMode

from models.abr.layout import POINTS, STATIC


@torch.no_grad()
def per_sample(model: Module) -> float:
    """Floating point operations of forward and backward, as torch counts those of one forward.

    Twice as many for the backward pass. The Fourier transforms of the state space layers are not
    among them; they are below a hundredth.
    """
    device = next(model.parameters()).device
    signal, static = torch.zeros(1, 1, POINTS, device=device), torch.zeros(1, STATIC, device=device)
    training = model.training
    model.eval()  # draws nothing from the generator that training draws from
    try:
        with FlopCounterMode(display=False) as counter:
            model(signal, static)
    finally:
        model.train(training)
    return 3.0 * counter.get_total_flops()
