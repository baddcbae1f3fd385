"""The numbers that the originals state for their modes, each with the promise made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stated:
    """A statement of an original about one of its modes."""

    model: str
    """Family, or family:size."""
    mode: str
    text: str
    promises: Sequence[str] = ()
    """The measures that hold it here; of several names of one thing, those that are promised."""
    why: str = ""
    """Why it is not measured."""
    stage: str | None = None


_WHY = {
    "machine": "not that computer and data; the ratio is promised",
    "part": "a part of the total, which is promised",
    "data": "depends on the recordings; lite takes a quarter of them, at least one",
    "advice": "advice; the minimum is promised",
    "disk": "depends on the number of checkpoints, see `save.keep_last`",
    "default": "mode default promises nothing",
    "gpu": "no GPU",
    "counted": "tests count them: [EEG to text](eeg-text.md)",
}
_TABLE = """
event_seg lite | an epoch in less than 1 hour instead of 30 | epoch_time
event_seg lite | a quarter of the memory | peak_memory device_peak
event_seg lite | 1 GB of GPU memory instead of 4 | device_peak_bytes
event_seg lite | 1 million parameters instead of 5 | parameters
event_seg lite | 1 hour per epoch on their computer | - machine
event_seg lite | 11,936 samples instead of 51,663 | - data
language resource-efficient | 50 to 70% of the memory | peak_memory device_peak
language resource-efficient | 40 to 60% of the speed | samples_per_s
language resource-efficient | 64 samples per step, as before | global_batch
language:full resource-efficient | runs in 8 GB of RAM | host_peak_bytes
language:full resource-efficient | runs on a GPU of 4 GB | device_peak_bytes
language resource-efficient | better with 16 GB of RAM and a GPU of 8 GB | - advice
language resource-efficient | 10 GB of free disk | - disk
language default | 32 GB of RAM and a GPU of 16 GB | - default
abr fast | 3 to 5 times faster | total_time
abr fast | 40 to 60% less memory | peak_memory device_peak
abr fast | the same network | parameters
abr fast | as good or better, and sooner | metric time_to_metric
abr fast | 8, 6, 4 and 48 hours become 2.5, 1.8, 1.2 and 15 | - machine
abr fast | 1.5 to 2 times by the larger batch | - part
abr fast | 1.2 times, and 30% less memory, by accumulation | - part
abr fast | 1.3 to 1.8 times by more loader workers | - part
abr fast | 1.1 times, and 20 to 40% less memory, by its attention | - part
abr fast | a GPU in use more than 90% of the time | - gpu
abr ultra-fast | 3 to 5 times faster | total_time
abr ultra-fast | 40 to 60% less memory | peak_memory device_peak
abr ultra-fast | the same network | parameters
abr ultra-fast | 8, 6, 4 and 48 hours become 1.5, 1, 0.75 and 8 | - machine
doc_translation conservative | twice as fast per step | step_time
doc_translation conservative | 2 to 3 times faster in all | total_time
doc_translation conservative | 32 samples per step, as before | global_batch
doc_translation conservative | the same network | parameters
doc_translation conservative | 10 to 15 minutes per step instead of 25 | - machine
eeg_text staged | half the peak memory | peak_memory device_peak
eeg_text staged | no loss of quality | metric
eeg_text staged encoder | stage 1 in 2 to 4 GB | device_peak_bytes host_peak_bytes
eeg_text staged text | stage 2 in 6 to 8 GB | device_peak_bytes host_peak_bytes
eeg_text staged | 2 to 3 hours, then 4 to 5, on a CPU | - machine
eeg_text staged | 271 million parameters, then 352 | - counted
"""
"""Model, mode and stage; what is stated; its promises, or - and why it has none."""


def _read(line: str) -> Stated:
    about, text, held = line.split(" | ")
    model, mode, *stage = about.split()
    dash, _, why = held.partition("- ")
    return Stated(model, mode, text, () if why else dash.split(), _WHY.get(why, ""), *stage)


STATED = tuple(map(_read, _TABLE.strip().splitlines()))
