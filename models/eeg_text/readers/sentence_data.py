"""What both kinds of ZuCo files have in common: which axis is which, and what is missing."""

from __future__ import annotations

import numpy as np

from models.eeg_text.config import CHANNELS


def oriented(raw: np.ndarray, time_first: bool) -> tuple[np.ndarray, str | None]:
    """EEG [time, 105] float32, and what is wrong with it: None if nothing is.

    A scalar NaN and an empty array are missing EEG, of length 0, and nothing wrong. The axis of
    105 is that of channels, never the shorter one; where both have 105, `time_first` decides.
    """
    nothing = np.zeros((0, CHANNELS), dtype=np.float32)
    if raw.size == 0 or (raw.size == 1 and np.isnan(raw).all()):
        return nothing, None
    if raw.ndim != 2 or CHANNELS not in raw.shape:
        shape = " x ".join(map(str, raw.shape))
        return nothing, f"rawData is {shape or 'one number'}, none of them {CHANNELS} channels"
    is_time_first = raw.shape[1] == CHANNELS and (time_first or raw.shape[0] != CHANNELS)
    eeg = np.asarray(raw if is_time_first else raw.T, dtype=np.float32)
    if not np.isfinite(eeg).all():
        return nothing, "rawData holds values that are no numbers"
    return eeg, None


def fault_of_text(text: str) -> str | None:
    """What is wrong with a sentence."""
    return None if any(c.isalnum() for c in text) else "content holds no words"
