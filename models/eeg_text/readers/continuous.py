"""Continuous recordings cut into windows, or into the sentences that were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.data_files import BadRecords
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.readers import channel_map, raw, tables
from models.eeg_text.readers.channel_map import Placed
from models.eeg_text.recordings import RATE_HZ, Item, Reading, Recordings, normalised

BLOCK = 8
"""Windows that a split keeps together; one more is left out between two blocks."""
MANY = 10
"""With so many recordings, each is a group of its own."""
TOLD = 8
"""Names of channels that are told."""
SHORTEST = 64
"""Samples at 500 Hz."""
UNIT = "microvolts, from the volts that MNE makes of the file's unit"


@dataclass(frozen=True)
class Stretch:
    """A piece of a recording."""

    file: int
    start_s: float
    item: Item


class ContinuousSource:
    """See recordings.Source."""

    def __init__(
        self, files: list[tuple[Path, Placed]], stretches: list[Stretch], line_hz: int
    ) -> None:
        self.files, self.stretches, self.line_hz = files, stretches, line_hz

    def eeg(self, number: int) -> np.ndarray:
        """See Source."""
        stretch = self.stretches[number]
        path, placed = self.files[stretch.file]
        samples = stretch.item.samples
        found = raw.piece(path, placed.picks, stretch.start_s, samples, self.line_hz)
        eeg = np.zeros((len(found), CHANNELS), dtype=np.float32)
        eeg[:, placed.slots] = found
        return eeg

    def recorded(self, number: int) -> np.ndarray:
        """See Source."""
        recorded = np.zeros(CHANNELS, dtype=bool)
        recorded[self.files[self.stretches[number].file][1].slots] = True
        return recorded


def read(path: Path, reading: Reading) -> Recordings:
    """The recordings at `path`, a file or a folder. Touches disk; raises DataError."""
    own = None if reading.channels is None else channel_map.own_map(reading.channels)
    texts = None
    if reading.texts is not None:
        texts = tables.pairs(Path(reading.texts).expanduser(), "data.texts", "events to sentences")
    forms = {p: formats.of_file(p) for p in formats.candidates(path)}
    paths = [p for p, form in forms.items() if form in formats.RECORDED]
    files: list[tuple[Path, Placed]] = []
    stretches: list[Stretch] = []
    bad_records = BadRecords("recordings and stretches")
    for place in paths:
        try:
            placed = _placed(place, own)
            cuts = _Cuts(place, placed, reading.samples, len(paths) >= MANY)
            stretches += cuts.stretches(len(files), texts, bad_records)
        except DataError as error:
            if reading.on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(place.name, error.message)
            continue
        files.append((place, placed))
    skipped = bad_records.finish(reading.on_bad, len(stretches))
    if not stretches:
        raise DataError(
            f"'{path}' holds no stretch of EEG of {SHORTEST / RATE_HZ:g} s and more",
            where="data.path",
            allowed="; ".join(formats.RECORDED),
        )
    dropped = Counter(name for _, placed in files for name in placed.dropped)
    notes = {
        "channels": max(len(placed.slots) for _, placed in files),
        "channels_dropped": _told(sorted(dropped)),
    }
    source = ContinuousSource(files, stretches, reading.line_hz)
    items = [stretch.item for stretch in stretches]
    form = forms[files[0][0]] or ""
    return Recordings(str(path), form, UNIT, items, source, Counter(bad=skipped), notes)


def _told(names: list[str]) -> list[str]:
    return names if len(names) <= TOLD else [*names[:TOLD], f"and {len(names) - TOLD} more"]


def _placed(path: Path, own: Mapping[str, str] | None) -> Placed:
    names = raw.opened(path).ch_names
    placed = channel_map.place(names, own)
    # A few names that mean something else elsewhere, such as E2, may be known by accident.
    if not placed.picks or (own is None and 2 * len(placed.picks) < len(names)):
        shown = ", ".join(placed.dropped[:8])
        raise DataError(
            f"{len(placed.picks)} of the {len(names)} channels of '{path.name}' are known, "
            f"not {shown} ...",
            where=str(path) if own is None else "data.channels",
            allowed=channel_map.LEGAL,
            fix="tell where they are:  --set data.channels=FILE",
        )
    return placed


class _Cuts:
    """How one recording is cut."""

    def __init__(self, path: Path, placed: Placed, samples: int, is_group: bool) -> None:
        self.path, self.placed, self.samples, self.is_group = path, placed, samples, is_group
        found = raw.opened(path)
        self.seconds = found.n_times / float(found.info["sfreq"])
        self.events = list(
            zip(
                found.annotations.onset.tolist(),
                found.annotations.duration.tolist(),
                map(str, found.annotations.description),
                strict=True,
            )
        )

    def stretches(
        self, file: int, texts: Mapping[str, str] | None, bad_records: BadRecords
    ) -> list[Stretch]:
        """Sentences where their times are known, windows otherwise; without bad ones."""
        beside = tables.beside(self.path)
        if texts is not None:
            made = list(self._sentences(file, self._named(texts), bad_records))
        elif beside is not None:
            made = list(self._sentences(file, tables.sentences(beside), bad_records))
        else:
            made = list(self._windows(file))
        if formats.of_file(self.path) != formats.EEGLAB:
            return made  # whole numbers, which are always numbers
        finite = raw.finite_seconds(self.path, self.placed.picks)
        return [stretch for stretch in made if self._is_finite(stretch, finite, bad_records)]

    def _is_finite(self, stretch: Stretch, finite: np.ndarray, bad_records: BadRecords) -> bool:
        stop = stretch.start_s + stretch.item.samples / RATE_HZ + raw.MARGIN_S
        is_finite = bool(finite[max(0, int(stretch.start_s - raw.MARGIN_S)) : int(stop) + 1].all())
        if not is_finite:
            bad_records.add(
                stretch.item.where, "values that are no numbers within its filter's reach"
            )
        return is_finite

    def _windows(self, file: int) -> Iterator[Stretch]:
        length = self.samples / RATE_HZ
        for number in range(int(self.seconds / length)):
            block, place = divmod(number, BLOCK + 1)
            if place == BLOCK and not self.is_group:
                continue
            start = number * length
            group = self.path.name if self.is_group else f"{self.path.name}, block {block + 1}"
            where = f"{self.path.name}, {start:.1f} s"
            yield Stretch(file, start, Item(None, self.path.stem, group, self.samples, where))

    def _named(self, texts: Mapping[str, str]) -> list[tables.Reading]:
        """What was read at each event that `texts` has a sentence for.

        An event without a length lasts until the next one, or for one window.
        """
        known = [event for event in self.events if event[2] in texts]
        if not known:
            names = sorted({name for *_, name in self.events})
            raise DataError(
                f"no event of '{self.path.name}' is in data.texts",
                where="data.texts",
                allowed=f"events of the recording: {', '.join(names) or 'there are none'}",
            )
        found = []
        for onset, duration, name in known:
            later = [other for other, *_ in self.events if other > onset]
            lasts = min(min(later, default=onset) - onset or np.inf, self.samples / RATE_HZ)
            where = f"{self.path.name}, event {name} at {onset:.2f} s"
            found.append(tables.Reading(onset, duration or lasts, texts[name], where))
        return found

    def _sentences(
        self, file: int, readings: list[tables.Reading], bad_records: BadRecords
    ) -> Iterator[Stretch]:
        for reading in readings:
            samples = round(reading.duration_s * RATE_HZ)
            group = normalised(reading.text)
            end = reading.onset_s + reading.duration_s
            if not group:
                bad_records.add(reading.where, "the text holds no words")
            elif samples < SHORTEST:
                bad_records.add(reading.where, f"{reading.duration_s:g} s is too short to cut out")
            elif reading.onset_s < 0 or end > self.seconds + 1 / RATE_HZ:
                bad_records.add(
                    reading.where, f"it ends at {end:g} s, the recording at {self.seconds:g} s"
                )
            else:
                item = Item(reading.text, self.path.stem, group, samples, reading.where)
                yield Stretch(file, reading.onset_s, item)
