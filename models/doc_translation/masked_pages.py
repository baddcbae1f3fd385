"""Masked pages of stage encoder: samples, batches, the loss and its metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch, Draws
from models.common.fixed_samples import spread_positions
from models.doc_translation import images
from models.doc_translation.config import Size
from models.doc_translation.masked_model import patches
from models.doc_translation.metric import counts_on
from models.doc_translation.readers.page import Page

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
        """Sample `index`. May read from disk; raises DataError."""
        page = self.pages[index]
        rng = draws.rng() if self.seed is None else np.random.default_rng([self.seed, index])
        whole = draw_mask(rng, self.size.whole.tokens, self.share)
        near = draw_mask(rng, self.size.local.tokens, self.share)
        seen = None if self.shown is None else self.views(int(self.shown[index]))
        return MaskedSample(self.views(index), (whole, near), page.document, page.name, seen)

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
            whole, near = self.views(number)
            batches = images.global_batch([whole]), images.local_batch([near])
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
    whole, near = zip(*views, strict=True)
    found = images.global_batch(whole), images.local_batch(near)
    return {f"{name}_{view}": tensor for view, tensor in zip(VIEWS, found, strict=True)}


def predict(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's prediction of both views; see MaskedEncoders. Collective if it is sharded."""
    seen = [batch.get(f"seen_{view}", batch[f"page_{view}"]) for view in VIEWS]
    whole, near = model(*seen, *(batch[f"mask_{view}"] for view in VIEWS))
    return whole.float(), near.float()


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
        found = [
            [torch.ones_like(true) for true in truth],
            truth,
            [true.square() for true in truth],
            squared_errors(guesses, truth),
            squared_errors(means, truth),
        ]
        sums = [total for values in found for total in masked_sums(values, batch)]
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
