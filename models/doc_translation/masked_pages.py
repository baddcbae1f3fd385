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
from models.common.masked_series import masked_counts, masked_scores
from models.common.predictions import spread_positions
from models.doc_translation import images
from models.doc_translation.config import SWIN_PATCH, Size
from models.doc_translation.images import Views
from models.doc_translation.model import blank_views, forward_flops, global_encoder, local_encoder
from models.doc_translation.readers.page import Page

ENCODERS = ("global_encoder.", "local_encoder.")
"""Prefixes of the parameters that stage whole takes over."""
VIEWS = ("global", "local")
MEAN_OF = 200
"""Most training pages of the mean page; more hardly change it."""


class MaskedEncoders(nn.Module):
    """Global and local encoder, which predict masked patches from the visible ones.

    A linear layer predicts the pixels of each patch. Source: Xie et al., SimMIM, 2022.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.patch = size.local.patch
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
        whole, local = self.encode(page_global, self._visible(page_local, mask_local), mask_global)
        return self.global_head(whole), self.local_head(local)

    def encode(
        self, page_global: Tensor, page_local: Tensor, mask_global: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features [batch, patch, width] of both views."""
        whole = self.global_encoder(page_global, bool_masked_pos=mask_global)
        local = self.local_encoder(page_local)
        # The first token of the global encoder belongs to no patch.
        return whole.last_hidden_state[:, 1:], local.last_hidden_state

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


@dataclass(frozen=True)
class MaskedSample:
    """One page: its views, and the mask of each view's patches, bool."""

    views: Views
    masks: Views
    document: str
    name: str
    seen: Views | None = None
    """In a noise control: views of another document, which replace the visible patches."""


@dataclass(frozen=True)
class MaskedPages:
    """Samples of one split, without texts; images are read or rendered on access."""

    pages: Sequence[Page]
    size: Size
    share: float
    """Share of the patches that is masked."""
    seed: int | None
    """Fixes the masked patches; None: others in each epoch."""
    shown: np.ndarray | None = None
    """In a noise control, the page that the encoders see instead; None: the own page."""

    def __len__(self) -> int:
        return len(self.pages)

    def sample(self, index: int, draws: Draws) -> MaskedSample:
        page = self.pages[index]
        rng = draws.rng() if self.seed is None else np.random.default_rng([self.seed, index])
        whole = draw_mask(rng, self.size.whole.tokens, self.share)
        local = draw_mask(rng, self.size.local.tokens, self.share)
        seen = None if self.shown is None else self.views(int(self.shown[index]))
        return MaskedSample(self.views(index), (whole, local), page.document, page.name, seen)

    def views(self, index: int) -> Views:
        """Both views of page `index`. May read from disk; raises DataError."""
        return images.views(self.pages[index].image(), self.size)

    def mean_page(self) -> tuple[Tensor, Tensor]:
        """The mean of both views over pages spread over the split, [1, 3, height, width]."""
        numbers = spread_positions(len(self), MEAN_OF)
        sums = [torch.zeros(()), torch.zeros(())]
        for number in numbers:
            batches = images.batches([self.views(number)])
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
    batch: dict[str, Any] = {}
    for number, view in enumerate(VIEWS):
        masks = np.stack([sample.masks[number] for sample in samples])
        batch[f"mask_{view}"] = torch.from_numpy(masks)
    seen = [sample.seen for sample in samples if sample.seen is not None]
    for name, views in (("page", [sample.views for sample in samples]), ("seen", seen)):
        if views:
            pages = images.batches(views)
            batch |= {f"{name}_{view}": page for view, page in zip(VIEWS, pages, strict=True)}
    batch["units"] = sum(int(mask.sum()) for sample in samples for mask in sample.masks)
    batch["meta"] = [(sample.document, sample.name) for sample in samples]
    return batch


def predict(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's prediction of both views; see MaskedEncoders. Collective if it is sharded."""
    seen = [batch.get(f"seen_{view}", batch[f"page_{view}"]) for view in VIEWS]
    whole, local = model(*seen, *(batch[f"mask_{view}"] for view in VIEWS))
    return whole.float(), local.float()


def true_patches(batch: Batch, size: Size) -> list[Tensor]:
    """The pixels of all patches of each view, [batch, patch, pixel]."""
    sizes = (size.whole.patch, size.local.patch)
    return [patches(batch[f"page_{v}"], patch) for v, patch in zip(VIEWS, sizes, strict=True)]


def loss(model: Module, batch: Batch, size: Size) -> Tensor:
    """The squared error of each masked patch, the mean of its pixels, summed over both views."""
    pairs = zip(predict(model, batch), true_patches(batch, size), VIEWS, strict=True)
    whole, local = (
        ((guess - true).square().mean(-1) * batch[f"mask_{view}"]).sum() for guess, true, view in pairs
    )
    return whole + local


class MaskedMetric:
    """R² of masked patches, and its gain over the mean page. Each update: one forward pass."""

    def __init__(self, size: Size, mean_page: tuple[Tensor, Tensor]) -> None:
        """`mean_page`: of the training split, see MaskedPages."""
        self.size = size
        sizes = (size.whole.patch, size.local.patch)
        self.means = [patches(*pair) for pair in zip(mean_page, sizes, strict=True)]

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """The counts of masked_series of each view, in which the mean page is interpolation."""
        return self.counts(predict(model, batch), batch)

    def counts(self, guesses: Sequence[Tensor], batch: Batch) -> Tensor:
        """The counts of `update` for the predictions `guesses`."""
        counts = []
        values = zip(guesses, true_patches(batch, self.size), self.means, VIEWS, strict=True)
        for guess, true, mean, view in values:
            is_masked = batch[f"mask_{view}"][..., None].expand_as(true)
            expanded = mean.to(guess.device).expand_as(true)
            counts.append(masked_counts(true, guess, expanded, is_masked))
        return torch.cat(counts)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts.

        `val_masked_r2` is the mean R² of both views, and `val_masked_gain` its distance to that of
        the mean page.
        """
        by_view = counts.double().view(2, -1)
        scores = [masked_scores(view) for view in by_view]
        masked = [float(by_view[n, 0]) / mean.shape[-1] for n, mean in enumerate(self.means)]
        errors = (score["val_loss"] * n for score, n in zip(scores, masked, strict=True))
        r2 = [score["val_masked_r2"] for score in scores]
        chance = [score["val_interpolation_r2"] for score in scores]
        return {
            "val_loss": sum(errors) / sum(masked),
            "val_masked_r2": sum(r2) / 2,
            "val_masked_gain": (sum(r2) - sum(chance)) / 2,
            **{f"val_masked_r2_{view}": score for view, score in zip(VIEWS, r2, strict=True)},
        }
