"""What a person should know of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.common.split import SPLITS
from models.eeg_text.noise import retrieval_band
from models.eeg_text.recordings import Recordings
from models.eeg_text.splits import Parts
from models.eeg_text.texts import Texts

_LARGEST_R2 = 0.02


@dataclass(frozen=True)
class Seen:
    """What setup found."""

    recordings: Recordings
    parts: Parts
    samples: int
    """Of the longest sample that is used."""
    texts: Texts | None
    control: str

    def facts(self) -> dict[str, Any]:
        """Counts, splits, what was left out; in a noise control the band of chance."""
        items = self.recordings.items
        times = [item.samples for item in items]
        kept = sum(min(time, self.samples) for time in times) / sum(times)
        facts: dict[str, Any] = {
            "source": self.recordings.name,
            "format": self.recordings.form,
            "unit": self.recordings.unit,
            "groups": {name: len(self.parts.groups[name]) for name in SPLITS},
            "samples": {name: len(self.parts.numbers[name]) for name in SPLITS},
            "readers": len({item.subject for item in items}),
            "time_kept": round(kept, 4),
            **{name: count for name, count in self.recordings.left_out.items() if count},
            **self.recordings.notes,
        }
        if self.texts is not None:
            facts["tokenizer"] = self.texts.tokenizer.name
            facts["candidates"] = self.texts.candidate_count
            facts |= {"texts_cut": self.texts.cut} if self.texts.cut else {}
        if self.control == "noise":
            facts["control"] = self._control()
        return facts

    def _control(self) -> dict[str, dict[str, float]]:
        """The band of each metric outside which the noise control tells a leak."""
        if self.texts is None:
            return {"val_masked_r2": {"max": _LARGEST_R2, "chance": 0.0}}
        sentences = len(self.parts.groups["val"])
        return {
            "val_retrieval": retrieval_band(self.texts.candidate_count, sentences),
            # Of two comparisons the worse one counts: by chance a gain lies below 0, not above.
            "val_rouge1_gain_in_se": {"min": -3.0, "max": 2.0, "chance": 0.0},
        }
