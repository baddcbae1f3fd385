"""Masked pages of stage encoder: network, samples, batches, loss and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Module

from models.base import Batch, Draws
from models.common.layers import attention_kernel
from models.common.predictions import spread_positions
from models.doc_translation import images
from models.doc_translation.config import SWIN_PATCH, Size
from models.doc_translation.metric import counts_on
from models.doc_translation.model import (
    blank_views,
    forward_flops,
    global_encoder,
    local_encoder,
)
from models.doc_translation.readers.page import Page

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
            local = self.local_encoder(self._visible(page_local, mask_local))
        # The first token of the global encoder belongs to no patch.
        return (
            self.global_head(whole.last_hidden_state[:, 1:]),
            self.local_head(local.last_hidden_state),
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


VIEWS = ("global", "local")
MEAN_OF = 200
"""Most training pages of the mean page; more hardly change it."""


@dataclass(frozen=True)
class MaskedSample:
    """One page: views uint8 [channel, height, width], and the mask of each view's patches, bool."""

    views: tuple[np.ndarray, np.ndarray]
    masks: tuple[np.ndarray, np.ndarray]
    document: str
    name: str
    seen: tuple[np.ndarray, np.ndarray] | None = None
    """In a noise control: views of another document, which replace the visible patches."""


class MaskedPages:
    """Samples of one split, without texts; images are read or rendered on access.

    `shown`: in a noise control, the page that the encoders see instead; None: the own page.
    """

    def __init__(
        self,
        pages: Sequence[Page],
        size: Size,
        share: float,
        seed: int | None,
        shown: np.ndarray | None = None,
    ) -> None:
        """`share` of the patches is masked; others in each epoch, or, with a `seed`, the same."""
        self.pages, self.size, self.shown = pages, size, shown
        self.share, self.seed = share, seed

    def __len__(self) -> int:
        return len(self.pages)

    def sample(self, index: int, draws: Draws) -> MaskedSample:
        page = self.pages[index]
        rng = draws.rng() if self.seed is None else np.random.default_rng([self.seed, index])
        whole = draw_mask(rng, self.size.whole.tokens, self.share)
        local = draw_mask(rng, self.size.local.tokens, self.share)
        seen = None if self.shown is None else self.views(int(self.shown[index]))
        return MaskedSample(self.views(index), (whole, local), page.document, page.name, seen)

    def views(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Both views of page `index`, uint8. May read from disk; raises DataError."""
        image = self.pages[index].image()
        return (
            images.global_view(image, self.size.whole.pixels),
            images.local_view(image, *self.size.local.pixels),
        )

    def mean_page(self) -> tuple[Tensor, Tensor]:
        """The mean of both views over pages spread over the split, [1, 3, height, width]."""
        numbers = spread_positions(len(self), MEAN_OF)
        sums = [torch.zeros(()), torch.zeros(())]
        for number in numbers:
            whole, local = self.views(number)
            batches = images.global_batch([whole]), images.local_batch([local])
            sums = [total + batch for total, batch in zip(sums, batches, strict=True)]
        return sums[0] / len(numbers), sums[1] / len(numbers)


def draw_mask(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """The mask of `count` patches, bool: `share` of them, rounded, at least 1 and not all."""
    mask = np.zeros(count, dtype=bool)
    mask[rng.permutation(count)[: min(count - 1, max(1, round(share * count)))]] = True
    return mask


def collate(samples: Sequence[MaskedSample]) -> dict[str, Any]:
    """Collate samples.

    `page_global` and `page_local` as for translation; `mask_global` and `mask_local`
    [batch, patch], bool; in a noise control `seen_global` and `seen_local`, which the encoders get
    instead; `units`, the number of masked patches; `meta`, document and page names.
    """
    batch: dict[str, Any] = _views("page", [sample.views for sample in samples])
    for number, view in enumerate(VIEWS):
        masks = np.stack([sample.masks[number] for sample in samples])
        batch[f"mask_{view}"] = torch.from_numpy(masks)
    seen = [sample.seen for sample in samples if sample.seen is not None]
    if seen:
        batch |= _views("seen", seen)
    batch["units"] = sum(int(mask.sum()) for sample in samples for mask in sample.masks)
    batch["meta"] = [(sample.document, sample.name) for sample in samples]
    return batch


def _views(name: str, views: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
    whole, local = zip(*views, strict=True)
    batches = images.global_batch(whole), images.local_batch(local)
    return {f"{name}_{view}": tensor for view, tensor in zip(VIEWS, batches, strict=True)}


def predict(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's prediction of both views; see MaskedEncoders. Collective if it is sharded."""
    seen = [batch.get(f"seen_{view}", batch[f"page_{view}"]) for view in VIEWS]
    whole, local = model(*seen, *(batch[f"mask_{view}"] for view in VIEWS))
    return whole.float(), local.float()


def masked_sums(values: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """For each view, the sum over masked patches of the mean of `values` [batch, patch, pixel]."""
    return [
        (value.mean(-1) * batch[f"mask_{view}"]).sum()
        for view, value in zip(VIEWS, values, strict=True)
    ]


def true_patches(batch: Batch, size: Size) -> list[Tensor]:
    """The pixels of all patches of each view, [batch, patch, pixel]."""
    sizes = (size.whole.patch, size.local.patch)
    return [patches(batch[f"page_{v}"], patch) for v, patch in zip(VIEWS, sizes, strict=True)]


def squared_errors(guesses: Sequence[Tensor], truth: Sequence[Tensor]) -> list[Tensor]:
    """The squared errors of each view, [batch, patch, pixel]."""
    return [(guess - true).square() for guess, true in zip(guesses, truth, strict=True)]


class MaskedMetric:
    """R² of masked patches, and its gain over the mean page. Each update: one forward pass."""

    def __init__(self, size: Size, mean_page: tuple[Tensor, Tensor]) -> None:
        """`mean_page`: of the training split, see MaskedPages."""
        self.size = size
        sizes = (size.whole.patch, size.local.patch)
        self.means = [patches(*pair) for pair in zip(mean_page, sizes, strict=True)]

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Five sums over the masked patches of both views, float64 [5 × 2].

        Patches, pixels, their squares, squared errors, and those of the mean page.
        """
        return self.counts(predict(model, batch), batch)

    def counts(self, guesses: Sequence[Tensor], batch: Batch) -> Tensor:
        """The counts of `update` for the predictions `guesses`."""
        device = guesses[0].device
        truth = true_patches(batch, self.size)
        means = [mean.to(device) for mean in self.means]
        quantities = [
            [torch.ones_like(true) for true in truth],
            truth,
            [true.square() for true in truth],
            squared_errors(guesses, truth),
            squared_errors(means, truth),
        ]
        sums = [total for values in quantities for total in masked_sums(values, batch)]
        return counts_on(device, torch.stack(sums).tolist())

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts.

        R² = 1 − squared errors ÷ variance of the same pixels: their mean scores 0. `val_masked_r2`
        is the mean of both views, and `val_masked_gain` its distance to that of the mean page.
        """
        masked, pixels, squares, errors, of_mean = counts.double().view(5, 2)
        variance = squares - pixels**2 / masked
        r2, chance = 1 - errors / variance, 1 - of_mean / variance
        return {
            "val_loss": float(errors.sum() / masked.sum()),
            "val_masked_r2": float(r2.mean()),
            "val_masked_gain": float((r2 - chance).mean()),
            **{
                f"val_masked_r2_{view}": float(score) for view, score in zip(VIEWS, r2, strict=True)
            },
        }
