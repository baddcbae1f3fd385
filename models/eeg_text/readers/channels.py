"""Channels of a recording and the electrodes that they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import listed
from gearshift.models.common.recordings.recording import Recording
from gearshift.models.eeg_text.montage import NAMES, SLOTS
from gearshift.models.eeg_text.readers import tables

LOWEST_RATE_HZ = 110
"""Lowest sampling rate that contains 50 Hz."""
ALLOWED = "electrodes of the 10-10 system or EGI's, such as Fz or E11"


@dataclass(frozen=True)
class ChannelPicks:
    """The mapped channels of a recording."""

    picks: list[int]
    """Indices into the channels of the recording."""
    slots: tuple[int, ...]
    """Their indices among the 105 channels."""
    dropped: list[str]
    """Names of the other channels."""


def electrode(name: str) -> str | None:
    """The electrode of a channel name, such as `EEG Fp1-REF` or `Fp1.`; None: unknown.

    A difference of two electrodes, such as `Fp1-F7`, is neither.
    """
    first, *others = _parts(name)
    if any(part in NAMES for part in others):
        return None
    return NAMES.get(first)


def _parts(name: str) -> list[str]:
    """The parts of a channel name between dashes, in capitals."""
    label = name.strip().upper().removeprefix("EEG")
    return [part.strip(" .") for part in label.split("-")]


def differences(names: Iterable[str]) -> list[str]:
    """The names of channels that are differences of two electrodes."""
    return [name for name in names if sum(part in NAMES for part in _parts(name)) > 1]


def load_channel_map(path: str) -> dict[str, str]:
    """Your map from channel names, in capitals, to electrodes.

    Reads the disk. Raises DataError for an unknown electrode.
    """
    targets = tables.pairs(path, "data.channels")
    for name, target in targets.items():
        if electrode(target) is None:
            raise DataError(
                f"channel '{name}' is mapped to unknown '{target}'",
                where=f"data.channels, {path}",
                allowed=ALLOWED,
                did_you_mean=get_close_matches(target, SLOTS, n=1, cutoff=0.0)[0],
            )
    return {name.upper(): target for name, target in targets.items()}


def place(recording: Recording, channel_map: Mapping[str, str] | None) -> ChannelPicks:
    """The electrode of each channel; of two channels with one electrode, the first is used.

    With a `channel_map`, only that counts; otherwise the channels of EEG in volts, of which most
    must be known: names such as E2 mean other electrodes in other systems. Raises DataError, also
    for a recording that is too slow.
    """
    file = str(recording.path)
    names = recording.names
    targets = {}
    if channel_map is None:
        eeg = []
        for pick, channel in enumerate(recording.channels):
            if channel.kind == "eeg" and not channel.is_bad:
                eeg.append(pick)
                if not channel.problem:
                    targets[pick] = channel.name
        recording.check([*targets] or eeg)
        least = max(1, -(-len(targets) // 2))
    else:
        targets = {pick: channel_map.get(name.upper(), "") for pick, name in enumerate(names)}
        least = 1  # a map may name any part of the channels
    pick_of_slot: dict[int, int] = {}
    """The channel of each electrode."""
    for pick, target in targets.items():
        label = electrode(target)
        if label is not None:
            pick_of_slot.setdefault(SLOTS.index(label), pick)
    picks = list(pick_of_slot.values())
    dropped = [name for pick, name in enumerate(names) if pick not in picks]
    if len(picks) < least:
        raise DataError(
            f"only {len(picks)} of the {len(targets)} channels of '{file}' are known; "
            f"unknown: {listed(dropped, 8)}",
            where=file if channel_map is None else "data.channels",
            allowed=ALLOWED,
            hint="map them:  --set data.channels=FILE",
        )
    recording.check(picks)
    if recording.rate_hz < LOWEST_RATE_HZ:
        raise DataError(
            f"'{file}' is sampled at {recording.rate_hz:g} Hz",
            where=file,
            allowed=f"at least {LOWEST_RATE_HZ} Hz, for EEG up to 50 Hz",
        )
    return ChannelPicks(picks, tuple(pick_of_slot), dropped)
