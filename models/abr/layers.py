"""Layers of the network: attention, convolutions, FiLM and state space."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gearshift.models.abr.config import CONDITION, MAX_DISTANCE
from gearshift.models.common.layers import Dropout, attention_kernel


class SequenceAttention(nn.Module):
    """Attention of one sequence to another, or to itself."""

    kernel = "auto"
    """As `memory.attention`."""

    def __init__(
        self,
        width: int,
        heads: int,
        bias: bool,
    ) -> None:
        """`bias`: of queries, keys and values; the output always has one."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """`x` [batch, time, width] attends to `memory` [batch, other, width].

        `positions` [65, width]: a key for each relative position, added to the keys there.
        Source: Shaw et al., Self-Attention with Relative Position Representations,
        2018, equation 4.
        """
        query = self._by_head(self.query(x))
        key = self._by_head(self.key(memory))
        value = self._by_head(self.value(memory))
        kernel = self.kernel
        added = None
        if positions is not None:
            added = self._distances(query, positions)
            # Flash kernels give no gradient of the added scores; see model.attention_counts.
            if kernel == "flash":
                kernel = "auto"
        if kernel == "auto" and query.device.type == "cpu":
            mixed = plain_attention(query, key, value, added)
        else:
            with attention_kernel(kernel):
                mixed = F.scaled_dot_product_attention(
                    query,
                    key,
                    value,
                    added,
                )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _distances(
        self,
        query: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """The relative-position scores, [batch, head, time, time]."""
        batch, heads, time, width = query.shape
        keys = positions.unflatten(-1, (heads, width)).to(query.dtype)
        scores = query @ (keys * width**-0.5).permute(1, 2, 0)
        # By distance: [batch, head, time, 2 * time - 1].
        far = max(0, time - 1 - MAX_DISTANCE)
        first = scores[..., :1].expand(-1, -1, -1, far)
        last = scores[..., -1:].expand(-1, -1, -1, far)
        scores = torch.cat((first, scores, last), -1)
        scores = scores.narrow(-1, MAX_DISTANCE + far - time + 1, 2 * time - 1)
        scores = scores.contiguous()
        # Each position starts one distance earlier than the one before. A gather reads an index as
        # large as the scores, and computes in fp32 on a CPU.
        *outer, step, _ = scores.stride()
        return scores.as_strided(
            (batch, heads, time, time),
            (*outer, step - 1, 1),
            time - 1,
        )


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
) -> Tensor:
    """Attention by two products and a softmax, for short sequences on a CPU.

    `query` [batch, head, time, width], `key` and `value` [batch, head, other, width]; `added`
    [batch, head, time, other] or None. torch's own kernels for a CPU take up to five times as long
    in bf16 for 200 positions and eight heads, most of it in the backward pass.
    """
    # Autocast would keep the softmax in fp32 for the backward pass, and a copy in bf16.
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        if added is not None:
            scores += added
        return scores.softmax(-1) @ value


class GeluFeedForward(nn.Sequential):
    """Two linear layers with GELU between, the inner one `factor` times as wide."""

    def __init__(
        self,
        width: int,
        factor: int,
        dropout: float,
    ) -> None:
        super().__init__(
            nn.Linear(width, factor * width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(factor * width, width),
        )


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each on the norm of its input.

    In a decoder, attention to a memory is between them, and attentions have no biases.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        factor: int,
        dropout: float,
        is_decoder: bool = False,
    ) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        if is_decoder:
            self.cross_norm = nn.LayerNorm(width)
        self.forward_norm = nn.LayerNorm(width)
        self.self_attention = SequenceAttention(width, heads, bias=not is_decoder)
        if is_decoder:
            self.cross_attention = SequenceAttention(width, heads, bias=False)
        self.feed_forward = GeluFeedForward(width, factor, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """`x` [batch, time, width], `memory` [batch, other, width]; positions as in attention."""
        normed = self.self_norm(x)
        x = x + self.dropout(self.self_attention(normed, normed, positions))
        if memory is not None:
            x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory))
        return x + self.dropout(self.feed_forward(self.forward_norm(x)))


def relative_positions(width: int) -> nn.Parameter:
    """A key for each relative position from -32 to 32; larger distances share the last."""
    return nn.Parameter(0.02 * torch.randn(2 * MAX_DISTANCE + 1, width))


class TimeConv(nn.Conv1d):
    """A convolution along time of [batch, time, channel]; a stride of 2 halves it, rounded up."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
    ) -> None:
        super().__init__(
            inputs,
            outputs,
            kernel,
            stride,
            padding=kernel // 2,
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


class ConvBlock(nn.Module):
    """Two convolutions with a ReLU between, a residual, and a layer norm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
    ) -> None:
        super().__init__()
        middle = max(inputs, outputs)
        self.convolutions = nn.Sequential(
            TimeConv(inputs, middle, kernel),
            nn.ReLU(),
            TimeConv(middle, outputs, kernel),
        )
        self.residual = nn.Identity() if inputs == outputs else TimeConv(inputs, outputs, 1)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, inputs]; returns [batch, time, outputs]."""
        return self.norm(self.convolutions(x) + self.residual(x))


class AttentionPooling(nn.Module):
    """The mean over time, weighted by a scorer with a tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.score = nn.Sequential(nn.Linear(width, half), nn.Tanh(), nn.Linear(half, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, width]; returns [batch, width]."""
        share = self.score(x).softmax(1)
        return (share.mT @ x.to(share.dtype)).squeeze(1)


def steps(
    count: int,
    device: torch.device,
) -> Tensor:
    """0, 1, 2 … `count` - 1, float32."""
    return torch.arange(count, device=device, dtype=torch.float32)


def sinusoids(x: Tensor) -> Tensor:
    """A vector for each position of `x` [batch, time, width], [time, width], float32.

    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.5.
    """
    time, width = x.shape[1:]
    exponent = 2 * steps(width // 2, x.device) / width
    angle = steps(time, x.device)[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat((angle.sin(), angle.cos()), dim=1)


def upsample(
    x: Tensor,
    time: int,
) -> Tensor:
    """`x` [batch, shorter, channel], interpolated linearly to `time` positions.

    A matrix product, because the gradient of torch's interpolation is not deterministic on CUDA.
    """
    shorter = x.shape[1]
    position = (steps(time, x.device) + 0.5) * (shorter / time) - 0.5
    position = position.clamp(0, shorter - 1)
    distance = position[:, None] - steps(shorter, x.device)
    return F.relu(1 - distance.abs()).to(x.dtype) @ x


STRENGTH = 0.1
CONDITION_DROPOUT = 0.15
"""Share of training samples without a condition."""


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with GELU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class FiLM(nn.Module):
    """y = (1 + 0.1·γ(c))·norm(x) + 0.1·β(c).

    The layer norm fixes the scale of x. In training, some samples get a learned vector instead of
    their condition. Source: Perez et al., FiLM, 2018.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(CONDITION, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.GELU(),
        )
        self.gamma = mlp(width, width, width)
        self.beta = mlp(width, width, width)
        self.norm = nn.LayerNorm(width)
        self.absent = nn.Parameter(torch.zeros(CONDITION))

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """`x` [batch, time, width], `condition` [batch, 8]."""
        batch = x.shape[0]  # len() would fix it when the model is exported
        # Also in evaluation: a parameter outside the graph would have no gradient.
        absent = torch.zeros(batch, 1, device=x.device) > 0
        if self.training:
            absent = torch.rand(batch, 1, device=x.device) < CONDITION_DROPOUT
        features = self.trunk(torch.where(absent, self.absent, condition))
        scale = 1 + STRENGTH * self.gamma(features)
        shift = STRENGTH * self.beta(features)
        return scale[:, None] * self.norm(x) + shift[:, None]


SLOWEST = 1e-3
FASTEST = 1e-1
"""Range of the initial time steps of the channels."""


class StateSpace(nn.Module):
    """Half of the channels are causal, half anti-causal; the kernel is as long as the input.

    The kernel of channel f at distance l is
    dt_f · Re Σ_n mix_n C[f,n] B[n,f] exp(l·dt_f·(−softplus(A_re,n) + i·A_im,n)).
    Source: Gu et al., On the Parameterization and Initialization of Diagonal State Space Models,
    2022; A is initialized as S4D-Lin.
    """

    def __init__(
        self,
        width: int,
        states: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.a_re = nn.Parameter(torch.full((states,), 0.5).expm1().log())  # its softplus is 0.5
        self.a_im = nn.Parameter(math.pi * torch.arange(states, dtype=torch.float32))
        self.mix = nn.Parameter(torch.ones(states))
        self.b = nn.Parameter(torch.ones(states, width))
        self.c = nn.Parameter(torch.randn(width, states))
        low = math.log(SLOWEST)
        self.log_dt = nn.Parameter(low + (math.log(FASTEST) - low) * torch.rand(width))
        self.d = nn.Parameter(torch.ones(width))
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, width]; returns the same shape."""
        # Large angles and sums over many steps need fp32.
        with torch.autocast(x.device.type, enabled=False):
            mixed = self._mixed(x.float())
        return self.dropout(F.gelu(self.norm(mixed.to(x.dtype))))

    def kernel(self, time: int) -> Tensor:
        """The convolution kernel of each channel, [time, width], float32."""
        dt = self.log_dt.float().exp()
        elapsed = (steps(time, dt.device)[:, None] * dt)[..., None]  # [time, width, 1], by states
        decay = F.softplus(self.a_re.float())
        angle = self.a_im.float() * elapsed
        wave = torch.exp(-decay * elapsed) * torch.cos(angle)
        weight = self.mix.float() * self.c.float() * self.b.float().T
        return dt * torch.einsum("tfn,fn->tf", wave, weight)

    def _mixed(self, x: Tensor) -> Tensor:
        time, width = x.shape[1:]
        # Padded to twice the length, against circular wrap-around.
        spectrum = torch.fft.rfft(x, n=2 * time, dim=1)
        kernel = torch.fft.rfft(self.kernel(time), n=2 * time, dim=0)
        half = width // 2
        # The conjugate is the same kernel with time reversed: anti-causal.
        kernel = torch.cat((kernel[:, :half], kernel[:, half:].conj()), dim=1)
        convolved = torch.fft.irfft(spectrum * kernel, n=2 * time, dim=1)[:, :time]
        return convolved + self.d.float() * x
