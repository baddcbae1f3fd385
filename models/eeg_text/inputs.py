"""What the encoder is given over a split of EEG with text, each input once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from models.base import Batch
from models.common.paths import files
from models.eeg_text import batches
from models.eeg_text.dataset import TextSamples

_EMBEDDED = "embedded:"


class TextInputs:
    """See models/base.py: EncoderInputs."""

    def __init__(self, samples: TextSamples, path: str, control: str) -> None:
        """`path`: of the data. Looks at files, not into them."""
        self._samples = samples
        rules = samples.rules
        self.made_from = {
            "data": path,
            "files": [] if path.startswith(_EMBEDDED) else _stamps(Path(path).expanduser()),
            "items": _items(samples),
            "samples": rules.samples,
            "control": control,
            "seed": rules.seed,
        }

    def __len__(self) -> int:
        return self._samples.inputs

    def batch(self, numbers: Sequence[int]) -> Batch:
        """eeg and eeg_mask."""
        seen = [self._samples.seen(number) for number in numbers]
        return batches.eeg(seen, self._samples.rules.samples)


def _stamps(path: Path) -> list[list[str | int]]:
    """Name, bytes and time of change of each file. Touches disk, not their content."""
    stats = [(file, file.stat()) for file in files(path)]
    return [[file.as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _items(samples: TextSamples) -> str:
    """A digest of which recordings there are, in their order."""
    digest = hashlib.sha256()
    for number in samples.numbers:
        item = samples.recordings.items[number]
        digest.update(repr((number, item.where, item.subject, item.group, item.samples)).encode())
    return digest.hexdigest()
