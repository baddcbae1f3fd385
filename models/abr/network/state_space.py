"""A diagonal state space layer, computed as a convolution over the whole input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.dropout import Dropout

SLOWEST, FASTEST = 1e-3, 1e-1
"""Range of the initial time steps of the channels."""


class StateSpace(nn.Module):
    """Half of the channels are causal, half anti-causal; the kernel is as long as the input.

    The kernel of channel f at distance l is
    dt_f · Re Σ_n mix_n C[f,n] B[n,f] exp(l·dt_f·(−softplus(A_re,n) + i·A_im,n)).
    Source: Gu et al., On the Parameterization and Initialization of Diagonal State Space Models,
    2022; A is initialized as S4D-Lin.
    """

    def __init__(self, width: int, states: int, dropout: float) -> None:
        super().__init__()
        decay = torch.full((states,), 0.5)
        self.a_re = nn.Parameter(decay.expm1().log())  # its softplus is 0.5
        self.a_im = nn.Parameter(math.pi * torch.arange(states, dtype=torch.float32))
        self.mix = nn.Parameter(torch.ones(states))
        self.b = nn.Parameter(torch.ones(states, width))
        self.c = nn.Parameter(torch.randn(width, states))
        low, high = math.log(SLOWEST), math.log(FASTEST)
        self.log_dt = nn.Parameter(low + (high - low) * torch.rand(width))
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
        elapsed = torch.arange(time, device=dt.device, dtype=torch.float32)[:, None] * dt
        elapsed = elapsed[..., None]  # [time, width, 1] against [states]
        wave = torch.exp(-F.softplus(self.a_re.float()) * elapsed)
        wave = wave * torch.cos(self.a_im.float() * elapsed)
        weight = self.mix.float() * self.c.float() * self.b.float().T
        return dt * torch.einsum("tfn,fn->tf", wave, weight)

    def _mixed(self, x: Tensor) -> Tensor:
        time, width = x.shape[1:]
        # Padded to twice the length, against circular wrap-around.
        spectrum = torch.fft.rfft(x, n=2 * time, dim=1)
        kernel = torch.fft.rfft(self.kernel(time), n=2 * time, dim=0)
        causal = width // 2
        # The conjugate is the same kernel with time reversed.
        kernel = torch.cat((kernel[:, :causal], kernel[:, causal:].conj()), dim=1)
        convolved = torch.fft.irfft(spectrum * kernel, n=2 * time, dim=1)[:, :time]
        return convolved + self.d.float() * x
