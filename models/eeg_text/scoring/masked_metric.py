"""What is measured of filled gaps: the share of their variance that is explained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.eeg_text.config import TOKEN_SAMPLES

NAMES = ("values", "sum", "squares", "errors", "interpolation_errors")


def told(batch: Batch) -> Tensor:
    """Which values are to be told: hidden, valid and recorded; [batch, time, 105], bool."""
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1) & batch["eeg_mask"]
    return hidden[:, :, None] & batch["recorded"][:, None, :]


def interpolated(eeg: Tensor, known: Tensor) -> Tensor:
    """`eeg` [batch, time, channel] with straight lines where `known` [batch, time] is False.

    Beyond the first and the last known sample, those go on.
    """
    time = torch.arange(known.shape[1], device=eeg.device).expand_as(known)
    last = known.shape[1] - 1
    before = torch.where(known, time, -1).cummax(1).values
    after = torch.where(known, time, last + 1).flip(1).cummin(1).values.flip(1)
    left = torch.where(before < 0, after, before).clamp(max=last)
    right = torch.where(after > last, before, after).clamp(min=0)
    weight = ((time - left).to(eeg.dtype) / (right - left).clamp(min=1))[:, :, None]

    def at(place: Tensor) -> Tensor:
        return eeg.gather(1, place[:, :, None].expand_as(eeg))

    return at(left) * (1 - weight) + at(right) * weight


class MaskedMetric:
    """Counts over hidden values; see NAMES. Every update takes one forward pass."""

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds to the counts: float64, in the order of NAMES."""
        seen = batch.get("seen", batch["eeg"])
        valid = batch.get("seen_mask", batch["eeg_mask"])
        return self.counts(model(seen, valid, batch["mask_target"]), batch)

    def counts(self, guess: Tensor, batch: Batch) -> Tensor:
        """See update; of what the model gave, [batch, time, 105]."""
        seen = batch.get("seen", batch["eeg"])
        valid = batch.get("seen_mask", batch["eeg_mask"])
        hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1)
        lines = interpolated(seen, valid & ~hidden)
        found = [batch["eeg"], guess, lines, told(batch)]
        if guess.device.type == "mps":  # has no float64
            found = [tensor.cpu() for tensor in found]
        eeg, guess, lines, chosen = (tensor.double() for tensor in found)
        parts = (torch.ones_like(eeg), eeg, eeg**2, (guess - eeg) ** 2, (lines - eeg) ** 2)
        return torch.stack([(part * chosen).sum() for part in parts])

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts.

        R² = 1 − squared errors ÷ variance of the same values: 0 is what their mean would give.
        `val_interpolation_r2` is that of straight lines across the gaps.
        """
        n = dict(zip(NAMES, counts.double().tolist(), strict=True))
        variance = n["squares"] - n["sum"] ** 2 / n["values"]
        return {
            "val_loss": n["errors"] / n["values"],
            "val_masked_r2": 1 - n["errors"] / variance,
            "val_interpolation_r2": 1 - n["interpolation_errors"] / variance,
        }
