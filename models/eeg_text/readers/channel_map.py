"""Which of the 105 channels a recording's own channels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from models.base import DataError
from models.eeg_text.montage import INDICES, NAMES, SLOTS
from models.eeg_text.readers.tables import pairs

LEGAL = f"electrodes of the 10-10 system or EGI's, such as Fz or E11; regions: {', '.join(INDICES)}"


@dataclass(frozen=True)
class Placed:
    """Channels of a recording with their places."""

    picks: list[int]
    """Which of the recording's channels."""
    slots: list[int]
    """Where they stand among the 105."""
    dropped: list[str]
    """Channels without a place."""


def electrode(name: str) -> str | None:
    """The electrode of a channel's name, such as `EEG Fp1-REF` or `Fp1.`; None: not known."""
    word = name.strip().upper().removeprefix("EEG").strip().split("-")[0].strip(" .")
    return NAMES.get(word)


def own_map(path: str) -> dict[str, str]:
    """The person's own map, from names of channels in capitals to electrodes or regions.

    Touches disk. Raises DataError where a place is not known.
    """
    found = pairs(Path(path).expanduser(), "data.channels", "channels to electrodes or regions")
    for name, place in found.items():
        if place not in INDICES and electrode(place) is None:
            near = get_close_matches(place, [*INDICES, *SLOTS], n=1, cutoff=0.0)[0]
            raise DataError(
                f"channel '{name}' is mapped to '{place}', which is not known",
                where=f"data.channels, {path}",
                allowed=LEGAL,
                did_you_mean=near,
            )
    return {name.upper(): place for name, place in found.items()}


def place(names: Sequence[str], own: Mapping[str, str] | None) -> Placed:
    """Each channel's place; of two with one place the first stays.

    By the person's `own` map, where there is one, alone. A region gives the next of its channels
    that is free.
    """
    taken: dict[int, int] = {}
    dropped = []
    for pick, name in enumerate(names):
        word = name if own is None else own.get(name.upper(), "")
        if own is not None and word in INDICES:
            free = [slot for slot in INDICES[word] if slot not in taken]
        else:
            found = electrode(word)
            free = [] if found is None else [SLOTS.index(found)]
        if free and free[0] not in taken:
            taken[free[0]] = pick
        else:
            dropped.append(name)
    return Placed(list(taken.values()), list(taken), dropped)
