"""Network of stage encoder: both image encoders, each with a head that predicts masked patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.common.attention_kernels import attention_kernel
from models.doc_translation.config import SWIN_PATCH, Size
from models.doc_translation.model import (
    blank_views,
    forward_flops,
    global_encoder,
    local_encoder,
)

ENCODERS = ("global_encoder.", "local_encoder.")
"""Prefixes of the parameters that stage whole takes over."""


class MaskedEncoders(nn.Module):
    """Global and local encoder, which predict masked patches from the visible ones.

    A linear layer predicts the pixels of each patch. Source: Xie et al., SimMIM, 2022.
    """

    def __init__(self, size: Size, kernel: str = "auto") -> None:
        super().__init__()
        self.kernel, self.patch = kernel, size.local.patch
        self.global_encoder = global_encoder(size.whole)
        self.global_encoder.embeddings.mask_token.requires_grad_(True)
        self.local_encoder = local_encoder(size.local)
        # Not 0: a layer norm follows, and the gradient of the norm of zeros explodes.
        self.mask_pixels = nn.Parameter(torch.randn(3, SWIN_PATCH, SWIN_PATCH))
        self.global_head = nn.Linear(size.whole.width, 3 * size.whole.patch**2)
        self.local_head = nn.Linear(size.local.output_width, 3 * size.local.patch**2)

    def forward(
        self, page_global: Tensor, page_local: Tensor, mask_global: Tensor, mask_local: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predicted pixels of all patches of both views, [batch, patch, pixel] as in `patches`.

        `page_global` and `page_local` as for DocTranslator; `mask_global` and `mask_local`
        [batch, patch], bool: True for masked patches. The global encoder gets its mask token for
        them, the local one, which has none, trained pixels.
        """
        with attention_kernel(self.kernel):
            whole = self.global_encoder(page_global, bool_masked_pos=mask_global)
            near = self.local_encoder(self._visible(page_local, mask_local))
        # The first token of the global encoder belongs to no patch.
        return (
            self.global_head(whole.last_hidden_state[:, 1:]),
            self.local_head(near.last_hidden_state),
        )

    def encode(self, page_global: Tensor, page_local: Tensor) -> tuple[Tensor, Tensor]:
        """Features [batch, patch, width] of both views, of which nothing is masked."""
        with attention_kernel(self.kernel):
            whole = self.global_encoder(page_global).last_hidden_state[:, 1:]
            return whole, self.local_encoder(page_local).last_hidden_state

    def _visible(self, page: Tensor, mask: Tensor) -> Tensor:
        height, width = page.shape[2:]
        grid = mask.unflatten(1, (-1, width // self.patch))
        is_masked = grid.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        shown = self.mask_pixels.repeat(1, height // SWIN_PATCH, width // SWIN_PATCH)
        return torch.where(is_masked[:, None], shown, page)


def patches(page: Tensor, patch: int) -> Tensor:
    """`page` [batch, 3, height, width] as [batch, patch, pixel], patches in rows from the top."""
    cut = page.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def page_of(patches: Tensor, patch: int, width: int) -> Tensor:
    """The inverse of `patches` for pages of `width` pixels."""
    cut = patches.unflatten(1, (-1, width // patch)).unflatten(3, (3, patch, patch))
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def flops_per_sample(size: Size) -> float:
    """Floating point operations of forward and backward for one page; see model.py."""
    with torch.device("meta"):
        model = MaskedEncoders(size).eval()
        masks = (torch.zeros(1, view.tokens, dtype=torch.bool) for view in (size.whole, size.local))
        return 3.0 * forward_flops(lambda: model(*blank_views(size), *masks))
