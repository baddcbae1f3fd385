"""The network of the abr family."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gearshift.models.abr.config import CONDITION, STATIC, Size
from gearshift.models.abr.layers import ConvBlock, GeluFeedForward, SequenceAttention
from gearshift.models.abr.levels import (
    PEAK,
    Bottleneck,
    ClassHead,
    DecoderLevel,
    EncoderLevel,
    PeakHead,
    SignalHead,
    ThresholdHead,
)
from gearshift.models.abr.responses import FMP, Statistics
from gearshift.models.common.layers import HasFrozenParts

ENCODER = ("static", "input", "encoder", "bottleneck")
"""The parts that stage `encoder` trains."""


class Network(HasFrozenParts):
    """An encoder and a decoder over time with skip connections, and four heads.

    Heads without labels keep their initial weights and are not computed.
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
        widths = [size.base * 2**level for level in range(size.levels)]
        self.static = nn.Sequential(
            nn.Linear(STATIC, CONDITION),
            nn.GELU(),
            nn.LayerNorm(CONDITION),
            nn.Linear(CONDITION, CONDITION),
        )
        self.input = ConvBlock(1, size.base, 7)
        # The channels that each encoder level gets; its decoder level gets the same as its skip.
        inputs = [size.base, *widths[:-1]]
        self.encoder = nn.ModuleList()
        for before, width in zip(inputs, widths, strict=True):
            self.encoder.append(EncoderLevel(before, width, size))
        self.bottleneck = Bottleneck(widths[-1], size, kernel)
        below = widths[-1]
        self.decoder = nn.ModuleList()
        for skip, width in zip(inputs[::-1], widths[::-1], strict=True):
            self.decoder.append(DecoderLevel(below, width, skip, size, kernel))
            below = width
        self.output = ConvBlock(size.base, size.base, 7)
        peak = PeakHead(size, terms)
        self.heads = nn.ModuleDict(
            {
                # torch.export writes Python with these names, and "class" is a keyword.
                "signal_head": SignalHead(size, kernel),
                "peak_head": peak,
                "class_head": ClassHead(size),
                "threshold_head": ThresholdHead(size),
            }
        )
        for name, tensor in statistics.tensors().items():
            self.register_buffer(name, tensor)
        initialize_weights(self, keep_bias=self.input)
        self.terms = tuple(terms)
        self._single_heads = [name for name in terms if name not in PEAK]
        self._peak_outputs = peak.output_names
        # What has no labels gets no gradient, and no weight decay changes it.
        for name in ("signal", "class", "threshold"):
            self.heads[f"{name}_head"].requires_grad_(name in terms)
        peak.requires_grad_(bool(peak.output_names))
        for name in PEAK:
            getattr(peak, name).requires_grad_(name in terms)

    def encode(self, signal: Tensor, static: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features [batch, time, channel] of the input and of each level, bottleneck, condition."""
        condition = self.static(static)
        features = [self.input(signal.mT)]
        for level in self.encoder:
            features.append(level(features[-1], condition))
        return features, self.bottleneck(features[-1], condition), condition

    def forward(self, signal: Tensor, static: Tensor) -> dict[str, Tensor]:
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
        outputs = {name: self.heads[f"{name}_head"](x) for name in self._single_heads}
        if self._peak_outputs:
            columns = self.heads["peak_head"](x).float().unbind(-1)
            outputs |= dict(zip(self._peak_outputs, columns, strict=True))
        # The heads predict standard deviations from the mean.
        for name in ("latency", "amplitude", "threshold"):
            if name in outputs:
                center, scale = getattr(self, name)
                outputs[name] = center + scale * outputs[name]
        if "threshold" in outputs:
            outputs["threshold"] = F.softplus(outputs["threshold"])
        return {term: outputs[term] for term in self.terms}

    def blocks(self) -> list[nn.Module]:
        names = list(self._single_heads)
        if self._peak_outputs:
            names.append("peak")
        heads = [self.heads[f"{name}_head"] for name in names]
        return [
            self.input,
            *self.encoder,
            self.bottleneck,
            *self.decoder,
            self.output,
            *heads,
        ]


class UnscaledNetwork(nn.Module):
    """A trained network, or the encoder of one, for inputs in their own units."""

    def __init__(self, model: Network, is_encoder: bool) -> None:
        super().__init__()
        self.model = model
        self.is_encoder = is_encoder

    def forward(self, signal: Tensor, static: Tensor) -> Tensor | dict[str, Tensor]:
        """As Network.forward, for `signal` in µV and the facts in their units; NaN: unknown.

        The predicted signal is `reconstruction`, in µV: no two tensors of a graph share a name.
        """
        model = self.model
        signal = signal / model.signal_rms
        # As responses.even_facts, in operations that ONNX has.
        others, fmp = static.split((FMP, 1), dim=-1)
        even = torch.cat((others, torch.log(1 + fmp)), dim=-1)
        static = ((even - model.facts_mean) / model.facts_scale).nan_to_num()
        if self.is_encoder:
            return model.encode(signal, static)[1]
        outputs: dict[str, Tensor] = model(signal, static)
        return {"reconstruction": outputs.pop("signal") * model.signal_rms, **outputs}


RESIDUAL_SCALE = 0.1
"""Initial scale of residual branches."""


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
        if isinstance(module, SequenceAttention):
            module.output.weight.mul_(RESIDUAL_SCALE)
        elif isinstance(module, GeluFeedForward):
            module.last.weight.mul_(RESIDUAL_SCALE)
        elif isinstance(module, DecoderLevel):
            module.skip_norm.weight.fill_(RESIDUAL_SCALE)
