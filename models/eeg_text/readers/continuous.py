"""Continuous recordings, cut into windows or into the sentences that were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.data_files import BadRecords
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.readers import channel_map, raw, tables
from models.eeg_text.readers.channel_map import ChannelPicks
from models.eeg_text.recordings import RATE_HZ, Item, Reading, Recordings, normalized

BLOCK = 8
"""Windows per block, which stay in one split; one window is left out between two blocks."""
MANY = 10
"""From this number of recordings on, each recording is a group."""
MAX_NAMES = 8
"""Names of dropped channels in the facts."""
SHORTEST = 64
"""Shortest segment, in samples at 500 Hz."""
UNIT = "microvolts, converted from the unit of the file"


@dataclass(frozen=True)
class Segment:
    """An EEG segment of a recording."""

    file: int
    start_s: float
    item: Item


class ContinuousSource:
    """See recordings.Source."""

    def __init__(
        self, files: list[tuple[Path, ChannelPicks]], segments: list[Segment], line_hz: int
    ) -> None:
        self.files, self.segments, self.line_hz = files, segments, line_hz

    def eeg(self, number: int) -> np.ndarray:
        segment = self.segments[number]
        path, placed = self.files[segment.file]
        samples = segment.item.samples
        found = raw.read_segment(path, placed.picks, segment.start_s, samples, self.line_hz)
        eeg = np.zeros((len(found), CHANNELS), dtype=np.float32)
        eeg[:, placed.slots] = found
        return eeg

    def recorded(self, number: int) -> np.ndarray:
        recorded = np.zeros(CHANNELS, dtype=bool)
        recorded[self.files[self.segments[number].file][1].slots] = True
        return recorded


def read(path: Path, reading: Reading) -> Recordings:
    """The recordings at `path`, a file or a folder. Reads the disk; raises DataError."""
    own = reading.channel_map
    if reading.channels is not None and own is None:
        own = channel_map.load_channel_map(reading.channels)
    texts = None
    if reading.texts is not None:
        texts = tables.pairs(Path(reading.texts).expanduser(), "data.texts", "events to sentences")
    forms = {p: formats.of_file(p) for p in formats.candidates(path)}
    later = later_parts(p for p, form in forms.items() if form == formats.FIF)
    paths = [
        p for p, form in forms.items() if form in formats.RECORDED and p.resolve() not in later
    ]
    files: list[tuple[Path, ChannelPicks]] = []
    segments: list[Segment] = []
    bad_records = BadRecords("recordings and segments")
    for place in paths:
        try:
            placed = _placed(place, own)
            cuts = _Segments(place, placed, reading, len(paths) >= MANY)
            segments += cuts.segments(len(files), texts, bad_records)
        except DataError as error:
            if reading.on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(place.name, error.message)
            continue
        files.append((place, placed))
    skipped = bad_records.finish(reading.on_bad, len(segments))
    if not segments:
        raise DataError(
            f"'{path}' has no EEG segment of at least {SHORTEST / RATE_HZ:g} s",
            where="data.path",
            allowed="; ".join(formats.RECORDED),
        )
    dropped = sorted({name for _, placed in files for name in placed.dropped})
    if len(dropped) > MAX_NAMES:
        dropped[MAX_NAMES:] = [f"and {len(dropped) - MAX_NAMES} more"]
    channels = max(len(placed.slots) for _, placed in files)
    notes = {"channels": channels, "channels_dropped": dropped}
    source = ContinuousSource(files, segments, reading.line_hz)
    items = [segment.item for segment in segments]
    form = "; ".join(dict.fromkeys(str(forms[file]) for file, _ in files))
    return Recordings(str(path), form, UNIT, items, source, Counter(bad=skipped), notes)


def later_parts(fif_files: Iterable[Path]) -> set[Path]:
    """The later parts of split recordings; MNE reads them with the first."""
    parts: set[Path] = set()
    for path in fif_files:
        with suppress(DataError):  # reading it reports that
            parts.update(part.resolve() for part in raw.later_parts(path))
    return parts


def _placed(path: Path, own: Mapping[str, str] | None) -> ChannelPicks:
    found = raw.open_raw(path).ch_names
    picks = raw.eeg_channels(path) if own is None else list(range(len(found)))
    names = [found[pick] for pick in picks]
    mapped = channel_map.place_channels(names, own)
    others = [name for pick, name in enumerate(found) if pick not in picks]
    picks = [picks[number] for number in mapped.picks]
    placed = replace(mapped, picks=picks, dropped=[*mapped.dropped, *others])
    # A few known names are not enough: names such as E2 mean other electrodes in other systems.
    if not placed.picks or (own is None and 2 * len(placed.picks) < len(names)):
        shown = ", ".join(placed.dropped[:8])
        raise DataError(
            f"only {len(placed.picks)} of the {len(names)} channels of '{path.name}' are known; "
            f"unknown: {shown} ...",
            where=str(path) if own is None else "data.channels",
            allowed=channel_map.ALLOWED,
            fix="map them:  --set data.channels=FILE",
        )
    return placed


class _Segments:
    def __init__(self, path: Path, placed: ChannelPicks, reading: Reading, is_group: bool) -> None:
        self.path, self.placed, self.samples = path, placed, reading.samples
        self.is_group, self.to_predict = is_group, reading.to_predict
        found = raw.open_raw(path)
        self.seconds = found.n_times / float(found.info["sfreq"])

    def segments(
        self, file: int, texts: Mapping[str, str] | None, bad_records: BadRecords
    ) -> list[Segment]:
        """Sentences if their times are known, otherwise windows; without bad ones."""
        beside = tables.beside(self.path)
        if texts is not None:
            made = list(self._sentences(file, self._named(texts), bad_records))
        elif beside is not None:
            rows = tables.sentences(beside, has_text=not self.to_predict)
            made = list(self._sentences(file, rows, bad_records))
        elif self.to_predict:
            made = list(self._all_windows(file))
        else:
            made = list(self._windows(file))
        if formats.of_file(self.path) in (formats.EDF, formats.BDF):
            return made  # integers, which are always finite
        possible = raw.possible_seconds(self.path, self.placed.picks)
        return [segment for segment in made if self._is_possible(segment, possible, bad_records)]

    def _is_possible(self, segment: Segment, possible: np.ndarray, bad_records: BadRecords) -> bool:
        stop = segment.start_s + segment.item.samples / RATE_HZ + raw.MARGIN_S
        first = max(0, int(segment.start_s - raw.MARGIN_S))
        is_possible = bool(possible[first : int(stop) + 1].all())
        if not is_possible:
            problem = "non-finite values, or above 1 V, within the margin of its filter"
            bad_records.add(segment.item.where, problem)
        return is_possible

    def _windows(self, file: int) -> Iterator[Segment]:
        length = self.samples / RATE_HZ
        for number in range(int(self.seconds / length)):
            block, position = divmod(number, BLOCK + 1)
            if position == BLOCK and not self.is_group:
                continue
            start = number * length
            group = self.path.name if self.is_group else f"{self.path.name}, block {block + 1}"
            yield self._window(file, start, self.samples, group)

    def _all_windows(self, file: int) -> Iterator[Segment]:
        """The whole recording; its last window may be shorter."""
        total = int(self.seconds * RATE_HZ)
        for start in range(0, total, self.samples):
            samples = min(self.samples, total - start)
            if samples >= SHORTEST:
                yield self._window(file, start / RATE_HZ, samples, self.path.name)

    def _window(self, file: int, start: float, samples: int, group: str) -> Segment:
        where = f"{self.path.name}, {start:.1f} s"
        return Segment(file, start, Item(None, self.path.stem, group, samples, where, start))

    def _named(self, texts: Mapping[str, str]) -> list[tables.Reading]:
        """The sentence of each event that `texts` names.

        An event without a duration lasts until the next event, or for one window.
        """
        events = raw.events(self.path)
        known = [event for event in events if event[2] in texts]
        if not known:
            names = sorted({name for *_, name in events})
            raise DataError(
                f"data.texts names no event of '{self.path.name}'",
                where="data.texts",
                allowed=f"events of the recording: {', '.join(names) or 'none'}",
            )
        found = []
        for onset, duration, name in known:
            later = [other for other, *_ in events if other > onset]
            lasts = min(min(later, default=onset) - onset or np.inf, self.samples / RATE_HZ)
            where = f"{self.path.name}, event {name} at {onset:.2f} s"
            found.append(tables.Reading(onset, duration or lasts, texts[name], where))
        return found

    def _sentences(
        self, file: int, readings: list[tables.Reading], bad_records: BadRecords
    ) -> Iterator[Segment]:
        for reading in readings:
            samples = round(reading.duration_s * RATE_HZ)
            group = normalized(reading.text)
            end = reading.onset_s + reading.duration_s
            if not group and not self.to_predict:
                bad_records.add(reading.where, "the text has no words")
            elif samples < SHORTEST:
                bad_records.add(reading.where, f"{reading.duration_s:g} s is too short")
            elif reading.onset_s < 0 or end > self.seconds + 1 / RATE_HZ:
                bad_records.add(
                    reading.where, f"ends at {end:g} s, after the recording ({self.seconds:g} s)"
                )
            else:
                subject, onset = self.path.stem, reading.onset_s
                item = Item(reading.text, subject, group, samples, reading.where, onset)
                yield Segment(file, onset, item)
