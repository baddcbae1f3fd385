"""The whole network: a response and the facts of its examination in, what is told of it out."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from models.abr.config import Size
from models.abr.network import first_weights
from models.abr.network.convolution import ConvBlock
from models.abr.network.decoder import DecoderLevel
from models.abr.network.encoder import Bottleneck, EncoderLevel
from models.abr.network.film import static_embedding
from models.abr.network.heads import ClassHead, PeakHead, SignalHead, ThresholdHead
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
        first_weights.draw(self, keeps_bias=self.input)
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
