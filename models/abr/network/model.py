"""The whole network: a response and the facts of its examination in, what is told of it out."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.utils.flop_counter import FlopCounterMode

from models.abr.config import POINTS, STATIC, Size
from models.abr.network.attention import Attention, FeedForward
from models.abr.network.convolution import ConvBlock
from models.abr.network.film import static_embedding
from models.abr.network.heads import ClassHead, PeakHead, SignalHead, ThresholdHead
from models.abr.network.levels import Bottleneck, DecoderLevel, EncoderLevel
from models.abr.statistics import Statistics

PEAK = ("exists", "latency", "amplitude")


class Network(nn.Module):
    """An encoder and a decoder over time with skips between them, and four heads on top.

    What is never trained keeps its first weights and is not computed.
    """

    def __init__(
        self, size: Size, statistics: Statistics, terms: Collection[str], kernel: str = "auto"
    ) -> None:
        """`terms`, of losses.TERMS, are those that can be learnt from the data."""
        super().__init__()
        widths = size.widths
        skips = (size.base, *widths[:-1])
        self.static = static_embedding()
        self.input = ConvBlock(1, size.base, 7)
        self.encoder = nn.ModuleList(
            EncoderLevel(before, width, size) for before, width in zip(skips, widths, strict=True)
        )
        self.bottleneck = Bottleneck(widths[-1], size, kernel)
        below = (widths[-1], *widths[:0:-1])
        self.decoder = nn.ModuleList(
            DecoderLevel(before, width, skip, size, kernel)
            for before, width, skip in zip(below, widths[::-1], skips[::-1], strict=True)
        )
        self.output = ConvBlock(size.base, size.base, 7)
        self.heads = nn.ModuleDict(
            {
                "signal": SignalHead(size, kernel),
                "peak": PeakHead(size, frozenset(terms)),
                "class": ClassHead(size),
                "threshold": ThresholdHead(size),
            }
        )
        for name, tensor in statistics.tensors().items():
            self.register_buffer(name, tensor)
        draw(self, keeps_bias=self.input)
        self.terms = tuple(terms)
        self._freeze()

    def forward(self, signal: Tensor, static: Tensor) -> dict[str, Tensor]:
        """What is told of `signal` [batch, 1, 200] with the facts `static` [batch, 4], by term.

        signal [batch, 1, 200]; exists, a logit, latency in ms, amplitude in µV and threshold in
        dB [batch]; class, logits [batch, 5]. Terms that cannot be learnt are not among them.
        """
        condition = self.static(static)
        found = [self.input(signal.mT)]
        for level in self.encoder:
            found.append(level(found[-1], condition))
        x = self.bottleneck(found[-1], condition)
        for level in self.decoder:
            memory = found.pop()
            x = level(x, found[-1], memory, condition)
        x = self.output(x)
        told = {name: self.heads[name](x) for name in self._plain}
        if self._peak.asked:
            peak = self._peak(x).float().unbind(-1)
            told |= dict(zip(self._peak.asked, peak, strict=True))
        for name in ("latency", "amplitude"):
            if name in told:
                center, scale = getattr(self, name)
                told[name] = center + scale * told[name]
        return {term: told[term] for term in self.terms}

    def blocks(self) -> list[nn.Module]:
        """The layers in order, but for heads that are not trained."""
        heads = [*self._plain, *(["peak"] if self._peak.asked else [])]
        trunk = [*self.encoder, self.bottleneck, *self.decoder, self.output]
        return [self.input, *trunk, *(self.heads[name] for name in heads)]

    @property
    def _plain(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms if name not in PEAK)

    @property
    def _peak(self) -> PeakHead:
        head = self.heads["peak"]
        assert isinstance(head, PeakHead)
        return head

    def _freeze(self) -> None:
        for name in ("signal", "class", "threshold"):
            self.heads[name].requires_grad_(name in self.terms)
        peak = self._peak
        peak.requires_grad_(bool(peak.asked))
        for name in PEAK:
            getattr(peak, name).requires_grad_(name in peak.asked)


@torch.no_grad()
def flops_per_sample(model: Module) -> float:
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
