"""What a person should know of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.common.split import SPLITS
from models.eeg_text.noise import retrieval_band

if TYPE_CHECKING:
    from models.eeg_text.task import EegTextTask

_LARGEST_R2 = 0.02


def gather(task: EegTextTask) -> dict[str, Any]:
    """Counts, splits, what was left out; with a noise control the band of chance."""
    recordings, parts = task.recordings, task.parts
    items = recordings.items
    sets = [set(parts.groups[name]) for name in SPLITS]
    shared = sum(len(sets[i] & sets[j]) for i in range(3) for j in range(i))
    times = [item.samples for item in items]
    facts: dict[str, Any] = {
        "source": recordings.name,
        "format": recordings.form,
        "unit": recordings.unit,
        "groups": {name: len(parts.groups[name]) for name in SPLITS},
        "samples": {name: len(parts.numbers[name]) for name in SPLITS},
        "readers": len({item.subject for item in items}),
        "in_two_splits": shared,
        "time_kept": round(sum(min(t, task.samples) for t in times) / sum(times), 4),
        "left_out": dict(recordings.left_out),
        **recordings.notes,
    }
    if task.writes:
        facts["text"] = {
            "tokenizer": task.tokenizer.name,
            "tokens_written": task.texts.steps,
            "candidates": task.texts.candidate_count,
        }
    if task.loaded is not None:
        facts["encoder"] = task.loaded
    if task.control == "noise":
        facts["control"] = _control(task)
    return facts


def _control(task: EegTextTask) -> dict[str, dict[str, float]]:
    """The band of each metric outside which the noise control tells a leak."""
    if not task.writes:
        return {"val_masked_r2": {"max": _LARGEST_R2, "chance": 0.0}}
    sentences = len(task.parts.groups["val"])
    return {
        "val_retrieval": retrieval_band(task.texts.candidate_count, sentences),
        "val_rouge1_gain_in_se": {"min": -2.0, "max": 2.0, "chance": 0.0},
    }
