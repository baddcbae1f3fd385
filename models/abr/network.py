"""The network of the abr family, and its encoder with a head for masked responses."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.utils.flop_counter import FlopCounterMode

from models.abr.config import POINTS, STATIC, Size
from models.abr.layers import ConvBlock, GeluFeedForward, SequenceAttention, static_embedding
from models.abr.levels import (
    BOTTLENECK_LAYERS,
    SIGNAL_LAYERS,
    Bottleneck,
    ClassHead,
    DecoderLevel,
    EncoderLevel,
    PeakHead,
    SignalHead,
    ThresholdHead,
)
from models.abr.responses import Statistics
from models.common.layers import HasFrozenParts

PEAK = ("exists", "latency", "amplitude")


ENCODER = ("static", "input", "encoder", "bottleneck")
"""The parts that stage `encoder` trains."""


class TraceEncoder(HasFrozenParts):
    """The part of a network from the trace to the lowest rate."""

    def __init__(self, size: Size, kernel: str) -> None:
        super().__init__()
        widths = size.widths
        self.static = static_embedding()
        self.input = ConvBlock(1, size.base, 7)
        self.encoder = nn.ModuleList(
            EncoderLevel(before, width, size)
            for before, width in zip((size.base, *widths[:-1]), widths, strict=True)
        )
        self.bottleneck = Bottleneck(widths[-1], size, kernel)

    def encode(self, signal: Tensor, static: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features [batch, time, channel] of the input and of each level, bottleneck, condition."""
        condition = self.static(static)
        features = [self.input(signal.mT)]
        for level in self.encoder:
            features.append(level(features[-1], condition))
        return features, self.bottleneck(features[-1], condition), condition

    def freeze_encoder(self) -> None:
        """Freeze the parts that stage `encoder` trains."""
        self.freeze(*(self.get_submodule(name) for name in ENCODER))

    @property
    def is_encoder_frozen(self) -> bool:
        return not next(self.input.parameters()).requires_grad


class MaskedTrace(TraceEncoder):
    """The encoder, and a head that predicts masked points at the lowest rate."""

    def __init__(self, size: Size, statistics: Statistics, kernel: str = "auto") -> None:
        super().__init__(size, kernel)
        width = size.widths[-1]
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 2**size.levels)
        )
        for name in ("signal_rms", "static_mean", "static_scale"):
            self.register_buffer(name, statistics.tensors()[name])
        initialize_weights(self, keep_bias=self.input)

    def forward(self, signal: Tensor, static: Tensor, hidden: Tensor) -> Tensor:
        """All points [batch, 1, 200], predicted from the visible ones.

        `hidden` [batch, 200], bool: points of `signal` that are 0 for the encoder.
        """
        _, x, _ = self.encode(signal * ~hidden[:, None], static)
        return self.head(x).flatten(1)[:, None, : signal.shape[-1]]

    def blocks(self) -> list[nn.Module]:
        return [self.input, *self.encoder, self.bottleneck, self.head]


class Network(TraceEncoder):
    """An encoder and a decoder over time with skip connections, and four heads.

    Heads without labels keep their initial weights and are not computed.
    """

    def __init__(
        self, size: Size, statistics: Statistics, terms: Collection[str], kernel: str = "auto"
    ) -> None:
        """`terms`: the loss terms (loss.TERMS) with labels in the data."""
        super().__init__(size, kernel)
        widths = size.widths
        skips = (size.base, *widths[:-1])
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
        initialize_weights(self, keep_bias=self.input)
        self.terms = tuple(terms)
        self._freeze_heads()

    def forward(self, signal: Tensor, static: Tensor) -> dict[str, Tensor]:
        """The output of each term for `signal` [batch, 1, 200] with the facts `static` [batch, 4].

        signal [batch, 1, 200]; exists (a logit), latency in ms, amplitude in µV and threshold in
        dB [batch]; class, logits [batch, 5].
        """
        features, x, condition = self.encode(signal, static)
        for level in self.decoder:
            memory = features.pop()
            x = level(x, features[-1], memory, condition)
        x = self.output(x)
        outputs = {name: self.heads[name](x) for name in self._single_heads}
        if self._peak.output_names:
            peak = self._peak(x).float().unbind(-1)
            outputs |= dict(zip(self._peak.output_names, peak, strict=True))
        for name in ("latency", "amplitude"):
            if name in outputs:
                center, scale = getattr(self, name)
                outputs[name] = center + scale * outputs[name]
        return {term: outputs[term] for term in self.terms}

    def blocks(self) -> list[nn.Module]:
        heads = [*self._single_heads, *(["peak"] if self._peak.output_names else [])]
        trunk = [*self.encoder, self.bottleneck, *self.decoder, self.output]
        return [self.input, *trunk, *(self.heads[name] for name in heads)]

    @property
    def _single_heads(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms if name not in PEAK)

    @property
    def _peak(self) -> PeakHead:
        head = self.heads["peak"]
        assert isinstance(head, PeakHead)
        return head

    def _freeze_heads(self) -> None:
        for name in ("signal", "class", "threshold"):
            self.heads[name].requires_grad_(name in self.terms)
        peak = self._peak
        peak.requires_grad_(bool(peak.output_names))
        for name in PEAK:
            getattr(peak, name).requires_grad_(name in peak.output_names)


def attention_counts(size: Size, has_decoder: bool = True) -> tuple[int, int]:
    """The number of attentions of a network, and of those with relative positions.

    MaskedTrace has no decoder.

    The scores of relative positions are added to those of the keys, with a gradient: no flash
    kernel takes such a bias.
    """
    if not has_decoder:
        return BOTTLENECK_LAYERS, BOTTLENECK_LAYERS
    decoder = size.levels * size.layers
    relative = BOTTLENECK_LAYERS + decoder
    return relative + decoder + SIGNAL_LAYERS, relative


@torch.no_grad()
def flops_per_sample(model: Module) -> float:
    """Floating point operations of forward and backward for one sample: 3 times the forward pass.

    A frozen encoder has no backward. As counted by torch, without the Fourier transforms of the
    state space layers (below 1 %).
    """
    assert isinstance(model, TraceEncoder)
    device = next(model.parameters()).device
    inputs = [torch.zeros(1, 1, POINTS, device=device), torch.zeros(1, STATIC, device=device)]
    if isinstance(model, MaskedTrace):
        inputs.append(torch.zeros(1, POINTS, dtype=torch.bool, device=device))
    training = model.training
    model.eval()  # draws nothing from the generator that training draws from
    try:
        # Compiled blocks would be uncompiled from then on: torch leaves them alone in such a mode.
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            model(*inputs)
    finally:
        model.train(training)
    frozen = _encoder_flops(counter, model) if model.is_encoder_frozen else 0.0
    return 3.0 * counter.get_total_flops() - 2.0 * frozen


def _encoder_flops(counter: FlopCounterMode, model: TraceEncoder) -> float:
    names = {module: name for name, module in model.named_modules()}
    whole = type(model).__name__
    counts = counter.get_flop_counts()
    called = [model.static, model.input, *model.encoder, model.bottleneck]
    return float(sum(sum(counts[f"{whole}.{names[part]}"].values()) for part in called))


RESIDUAL_SCALE = 0.1
"""Initial scale of residual branches."""
INITIAL_THRESHOLD_DB = 20.0
"""Initial output of the threshold head; at 0 the slope of softplus would slow training."""


@torch.no_grad()
def initialize_weights(model: nn.Module, keep_bias: nn.Module) -> None:
    """Initialize linear layers and convolutions so that the signal reaches the output.

    With torch's default weights, after sixty layers with norms only 9 % of the output depends on
    the sample, the rest on biases; with these weights 60 %. Biases are 0 except those of
    `keep_bias`: after a norm only they separate low from high traces. Source of the weights:
    Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks,
    2010.
    """
    unchanged = set(keep_bias.modules())
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d) and module not in unchanged:
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        _scale_branch(module)


def _scale_branch(module: nn.Module) -> None:
    if isinstance(module, SequenceAttention):
        module.output.weight.mul_(RESIDUAL_SCALE)
    elif isinstance(module, GeluFeedForward):
        module.last.weight.mul_(RESIDUAL_SCALE)
    elif isinstance(module, DecoderLevel):
        module.skip_norm.weight.fill_(RESIDUAL_SCALE)
    elif isinstance(module, ThresholdHead):
        module.last.bias.fill_(INITIAL_THRESHOLD_DB)
