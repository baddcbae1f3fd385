"""The network of the abr family: its levels, its heads, and the whole."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gearshift.models.abr.config import CLASSES, CONDITION, POINTS, STATIC, Size
from gearshift.models.abr.layers import (
    AttentionPooling,
    ConvBlock,
    FiLM,
    GeluFeedForward,
    SequenceAttention,
    StateSpace,
    TimeConv,
    TransformerLayer,
    mlp,
    relative_positions,
    sinusoids,
    upsample,
)
from gearshift.models.abr.responses import FMP, Statistics
from gearshift.models.common.layers import HasFrozenParts

PEAK = ("exists", "latency", "amplitude")
POSITION_SCALE = 0.3
"""Scale of the position vectors, which would otherwise dominate the signal."""


class EncoderLevel(nn.Module):
    """Convolutions, halving of the rate, state space layers and FiLM.

    A level that adds channels starts with a projection; any other has a residual connection.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        size: Size,
    ) -> None:
        super().__init__()
        self.is_residual = inputs == width
        self.projection = TimeConv(inputs, width, 1, 2 if self.is_residual else 1)
        self.convolutions = nn.Sequential(ConvBlock(width, width, 3), ConvBlock(width, width, 3))
        self.halving = TimeConv(width, width, 3, stride=2)
        # Over all channels of a sample.
        self.halving_norm = nn.GroupNorm(1, width)
        self.state_spaces = nn.Sequential(
            StateSpace(width, size.states, size.dropout),
            StateSpace(width, size.states, size.dropout),
        )
        self.film = FiLM(width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """`x` [batch, time, inputs]; returns [batch, time / 2 rounded up, width]."""
        projected = self.projection(x)
        if not self.is_residual:
            x = projected
        x = self.halving(self.convolutions(x))
        x = F.gelu(self.halving_norm(x.mT).mT)
        x = x + (POSITION_SCALE * sinusoids(x)).to(x.dtype)
        x = self.film(self.state_spaces(x), condition)
        if self.is_residual:
            x = x + projected
        return self.norm(x)


class Bottleneck(nn.Module):
    """A state space layer and two transformer layers, concatenated and mixed."""

    def __init__(
        self,
        width: int,
        size: Size,
    ) -> None:
        super().__init__()
        self.state_space = StateSpace(width, size.states, size.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(width, size.heads, 4, size.dropout) for _ in range(2)
        )
        self.positions = relative_positions(width)
        self.layers_norm = nn.LayerNorm(width)
        self.joined = mlp(2 * width, 2 * width, width)
        self.film = FiLM(width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """`x` [batch, time, width]; returns the same shape."""
        filtered = self.state_space(x)
        attended = filtered
        for layer in self.layers:
            attended = layer(attended, self.positions)
        both = torch.cat((filtered, self.layers_norm(attended)), dim=-1)
        return self.norm(self.film(self.joined(both), condition))


class DecoderLevel(nn.Module):
    """Joins the level below with the encoder level of this rate, with attention and FiLM."""

    def __init__(
        self,
        inputs: int,
        width: int,
        skip: int,
        size: Size,
    ) -> None:
        super().__init__()
        dropout = size.dropout
        self.joined = nn.Sequential(TimeConv(inputs + skip, width, 3), nn.LayerNorm(width))
        self.memory = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, size.heads, 4, dropout, is_decoder=True)
            for _ in range(size.layers)
        )
        self.films = nn.ModuleList(FiLM(width) for _ in range(size.layers))
        self.positions = relative_positions(width)
        self.wide = nn.Sequential(nn.LayerNorm(width), GeluFeedForward(width, 4, dropout))
        self.narrow = nn.Sequential(nn.LayerNorm(width), GeluFeedForward(width, 2, dropout))
        self.skip = nn.Sequential(
            AttentionPooling(skip),
            nn.Linear(skip, width),
            nn.GELU(),
            nn.LayerNorm(width),
        )
        self.last = TimeConv(width, width, 3)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        skip: Tensor,
        memory: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """`x` [batch, shorter, inputs] and `memory` [batch, shorter, width]: the level below.

        `skip` [batch, time, skip], the encoder at this rate; returns [batch, time, width].
        """
        x = upsample(x, skip.shape[1])
        x = self.joined(torch.cat((x, skip.to(x.dtype)), dim=-1))
        memory = self.memory(memory)
        for layer, film in zip(self.layers, self.films, strict=True):
            x = film(layer(x, self.positions, memory), condition)
        x = x + self.wide(x)
        x = x + self.narrow(x)
        x = x + self.skip(skip)[:, None]
        return self.norm(x + self.last(x))


class SignalHead(nn.Module):
    """The waveform, from one pooled vector and a convolutional residual."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        base = size.base
        self.shape = nn.Sequential(
            TransformerLayer(base, 1, 2, size.dropout),
            TransformerLayer(base, 1, 2, size.dropout),
            AttentionPooling(base),
            mlp(base, 2 * base, 2 * base, POINTS),
        )
        self.residual = nn.Sequential(
            TimeConv(1, 16, 7),
            nn.GELU(),
            TimeConv(16, 8, 5),
            nn.GELU(),
            TimeConv(8, 1, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, 1, 200]."""
        # Transposed instead of unsqueezed at the end: torch would take those strides for
        # channels-last, and DDP would copy the gradient of the first convolution.
        shape = self.shape(x)[:, None].mT
        return (shape + self.residual(shape)).mT


class PeakHead(nn.Module):
    """Wave V: the logit of its existence, its latency and its amplitude."""

    def __init__(self, base: int) -> None:
        super().__init__()
        half = base // 2
        self.shared = nn.Sequential(AttentionPooling(base), mlp(base, base, base), nn.GELU())
        self.exists = mlp(base, half, 1)
        self.latency = mlp(base, base, half, 1)
        self.amplitude = mlp(base, base, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, 3], in the order of PEAK."""
        shared = self.shared(x)
        heads = (self.exists, self.latency, self.amplitude)
        return torch.cat([head(shared) for head in heads], dim=-1)


class ClassHead(nn.Module):
    """Logits of the hearing-loss classes, divided by a trained temperature."""

    def __init__(self, base: int) -> None:
        super().__init__()
        self.logits = nn.Sequential(
            AttentionPooling(base),
            nn.Linear(base, base),
            nn.GELU(),
            nn.LayerNorm(base),
            nn.Linear(base, base),
            nn.GELU(),
            nn.LayerNorm(base),
            mlp(base, base // 2, CLASSES),
        )
        # The logarithm, so that the temperature stays positive without a clamp.
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, 5]."""
        return self.logits(x) * torch.exp(-self.log_temperature)


ENCODER = ("static", "input", "encoder", "bottleneck")
"""The parts that stage `encoder` trains."""


class Network(HasFrozenParts):
    """An encoder and a decoder over time with skip connections, and four heads.

    Heads without labels keep their initial weights.
    """

    signal_rms: Tensor
    facts_mean: Tensor
    facts_scale: Tensor

    def __init__(
        self,
        size: Size,
        statistics: Statistics,
        terms: Collection[str],
        kernel: str = "auto",
    ) -> None:
        """`terms`: the loss terms (loss.TERMS) with labels in the data."""
        super().__init__()
        base = size.base
        widths = [base * 2**level for level in range(size.levels)]
        self.static = nn.Sequential(
            nn.Linear(STATIC, CONDITION),
            nn.GELU(),
            nn.LayerNorm(CONDITION),
            nn.Linear(CONDITION, CONDITION),
        )
        self.input = ConvBlock(1, base, 7)
        # The channels that each encoder level gets; its decoder level gets the same as its skip.
        inputs = [base, *widths[:-1]]
        self.encoder = nn.ModuleList(
            EncoderLevel(before, width, size) for before, width in zip(inputs, widths, strict=True)
        )
        self.bottleneck = Bottleneck(widths[-1], size)
        below = widths[-1]
        self.decoder = nn.ModuleList()
        for skip, width in zip(inputs[::-1], widths[::-1], strict=True):
            self.decoder.append(DecoderLevel(below, width, skip, size))
            below = width
        self.output = ConvBlock(base, base, 7)
        # torch.export writes Python with these names, and "class" is a keyword.
        self.signal_head = SignalHead(size)
        self.peak_head = PeakHead(base)
        self.class_head = ClassHead(base)
        self.threshold_head = nn.Sequential(
            AttentionPooling(base),
            mlp(base, base, base // 2, 1),
        )
        for name, value in vars(statistics).items():
            self.register_buffer(name, torch.tensor(value))
        initialize_weights(self)
        self.terms = terms
        for module in self.modules():
            if isinstance(module, SequenceAttention):
                module.kernel = kernel
        # What has no labels gets no gradient, and no weight decay changes it.
        self.peak_head.requires_grad_(not set(PEAK).isdisjoint(terms))
        for name in PEAK:
            self.peak_head.get_submodule(name).requires_grad_(name in terms)
        self.class_head.requires_grad_("class" in terms)
        self.threshold_head.requires_grad_("threshold" in terms)

    def encode(
        self,
        signal: Tensor,
        static: Tensor,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features [batch, time, channel] of the input and of each level, bottleneck, condition."""
        condition = self.static(static)
        features = [self.input(signal.mT)]
        for level in self.encoder:
            features.append(level(features[-1], condition))
        return features, self.bottleneck(features[-1], condition), condition

    def forward(
        self,
        signal: Tensor,
        static: Tensor,
    ) -> dict[str, Tensor]:
        """The output of each term for `signal` [batch, 1, 200] with the facts `static` [batch, 4].

        signal [batch, 1, 200]; exists (a logit), latency in ms, amplitude in µV and threshold in
        dB, never negative, [batch]; class, logits [batch, 5].
        """
        # From the deepest level up: its features are the memory, those above it the skip.
        features, x, condition = self.encode(signal, static)
        for level in self.decoder:
            memory = features.pop()
            x = level(x, features[-1], memory, condition)
        x = self.output(x)
        outputs = {
            "signal": self.signal_head(x),
            "class": self.class_head(x),
            "threshold": self.threshold_head(x).float().squeeze(-1),
        }
        outputs |= dict(zip(PEAK, self.peak_head(x).float().unbind(-1), strict=True))
        # The heads predict standard deviations from the mean.
        for name in ("latency", "amplitude", "threshold"):
            center, scale = getattr(self, name)
            outputs[name] = center + scale * outputs[name]
        outputs["threshold"] = F.softplus(outputs["threshold"])
        return {term: outputs[term] for term in self.terms}


class UnscaledNetwork(nn.Module):
    """A trained network for inputs in their own units."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        signal: Tensor,
        static: Tensor,
    ) -> dict[str, Tensor]:
        """As Network.forward, for `signal` in µV and the facts in their units; NaN: unknown.

        The predicted signal is `reconstruction`, in µV: no two tensors of a graph share a name.
        """
        model = self.model
        # As responses.even_facts, in operations that ONNX has.
        others, fmp = static.split((FMP, 1), dim=-1)
        even = torch.cat((others, torch.log(1 + fmp)), dim=-1)
        static = ((even - model.facts_mean) / model.facts_scale).nan_to_num()
        outputs = model(signal / model.signal_rms, static)
        return {"reconstruction": outputs.pop("signal") * model.signal_rms, **outputs}


RESIDUAL_SCALE = 0.1
"""Initial scale of residual branches."""


@torch.no_grad()
def initialize_weights(model: Network) -> None:
    """Initialize linear layers and convolutions so that the signal reaches the output.

    With torch's default weights, after sixty layers with norms only 9 % of the output depends on
    the sample, the rest on biases; with these weights 60 %. Biases are 0 except those of
    the input: after a norm only they separate low from high traces. Source of the weights:
    Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks,
    2010.
    """
    unchanged = set(model.input.modules())
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d) and module not in unchanged:
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, SequenceAttention):
            module.output.weight.mul_(RESIDUAL_SCALE)
        elif isinstance(module, GeluFeedForward):
            module.get_parameter("3.weight").mul_(RESIDUAL_SCALE)
        elif isinstance(module, DecoderLevel):
            module.get_parameter("skip.3.weight").fill_(RESIDUAL_SCALE)
