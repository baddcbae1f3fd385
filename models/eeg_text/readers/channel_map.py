"""Maps the channels of a recording to the 105 channels of the montage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from models.base import DataError
from models.eeg_text.montage import INDICES, NAMES, SLOTS
from models.eeg_text.readers.tables import pairs

ALLOWED = (
    f"electrodes of the 10-10 system or EGI's, such as Fz or E11; regions: {', '.join(INDICES)}"
)


@dataclass(frozen=True)
class ChannelPicks:
    """The mapped channels of a recording."""

    picks: list[int]
    """Indices into the channels of the recording."""
    slots: list[int]
    """Their indices among the 105 channels."""
    dropped: list[str]
    """Names of the unmapped channels."""


def electrode(name: str) -> str | None:
    """The electrode of a channel name, such as `EEG Fp1-REF` or `Fp1.`; None: unknown."""
    label = name.strip().upper().removeprefix("EEG").strip().split("-")[0].strip(" .")
    return NAMES.get(label)


def load_channel_map(path: str) -> dict[str, str]:
    """Your map from channel names, in capitals, to electrodes or regions.

    Reads the disk. Raises DataError for an unknown electrode or region.
    """
    found = pairs(Path(path).expanduser(), "data.channels", "channels to electrodes or regions")
    for name, target in found.items():
        if target not in INDICES and electrode(target) is None:
            near = get_close_matches(target, [*INDICES, *SLOTS], n=1, cutoff=0.0)[0]
            raise DataError(
                f"channel '{name}' is mapped to unknown '{target}'",
                where=f"data.channels, {path}",
                allowed=ALLOWED,
                did_you_mean=near,
            )
    return {name.upper(): target for name, target in found.items()}


def place_channels(names: Sequence[str], own: Mapping[str, str] | None) -> ChannelPicks:
    """The electrode of each channel; of two channels with one electrode, the first is used.

    With a map of your `own`, only that counts. A region stands for its next free electrode.
    """
    taken: dict[int, int] = {}
    dropped = []
    for pick, name in enumerate(names):
        target = name if own is None else own.get(name.upper(), "")
        if own is not None and target in INDICES:
            free = [slot for slot in INDICES[target] if slot not in taken]
        else:
            found = electrode(target)
            free = [] if found is None else [SLOTS.index(found)]
        if free and free[0] not in taken:
            taken[free[0]] = pick
        else:
            dropped.append(name)
    return ChannelPicks(list(taken.values()), list(taken), dropped)
