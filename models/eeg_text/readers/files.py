"""The recordings that data.path names: embedded sets, files or folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.data_files import copies, existing_path, told_copies, unknown_format
from gearshift.models.common.data_reports import BadRecords, MissingPackage, few, unknown_embedded
from gearshift.models.common.recordings import bids
from gearshift.models.common.recordings.files import open_recording
from gearshift.models.eeg_text import embedded, formats
from gearshift.models.eeg_text.config import Data
from gearshift.models.eeg_text.readers import continuous, zuco
from gearshift.models.eeg_text.recordings import RATE_HZ, Item, Recordings, Use


def read(
    path: str,
    data: Data,
    use: Use,
    channel_map: Mapping[str, str] | None = None,
) -> Recordings:
    """The recordings at `path`, read by the settings `data`.

    `channel_map`: the content of data.channels, if it was read before. Settings without effect are
    not read. Reads the disk; raises DataError.
    """
    if path in formats.EMBEDDED:
        return embedded.read(path)
    if path.startswith("embedded:"):
        raise unknown_embedded(path, formats.EMBEDDED)
    forms = first_parts(path)
    facts: dict[str, Any] = {}
    if use != "predict":
        # The same recording under two names would be in two splits.
        copied = copies({file: content_of(file) for file in forms})
        for copy in copied:
            del forms[copy]
        facts |= told_copies(copied)
        for file, form in forms.items():
            subject = zuco.subject(file) if form == formats.ZUCO else bids.subject(file)
            if data.split == "subject+sentence" and not subject:
                raise DataError(
                    f"the name of '{file.name}' tells no reader, and readers are held out",
                    where=str(file),
                    allowed="sub-LABEL_… of BIDS, and results<SUBJECT>_<TASK>.mat of ZuCo",
                    fix="--set data.split=sentence",
                    hint="or rename the recordings",
                )

    others = [file for file, form in forms.items() if form != formats.ZUCO]
    bad_records = BadRecords("recordings, segments and rows")
    missing = Counter[str]()
    cutter: Any = None
    if others:
        cutter = continuous.Cutter(others, data, use, channel_map, bad_records)
    items: list[Item] = []
    for file in list(forms):
        try:
            if file in others:
                items += cutter.read(file)
            else:
                items += zuco.read(file, use, bad_records, missing)
        except DataError as error:
            # A missing package is no fault of this file; of a single file nothing would be left.
            if data.on_bad == "stop" or isinstance(error, MissingPackage) or len(forms) == 1:
                raise
            bad_records.add(file.name, error.message, error.fix or error.hint)
            del forms[file]
    skipped = bad_records.finish(data.on_bad, len(items))
    if not items:
        raise DataError(
            f"'{path}' has no EEG segment of at least {continuous.SHORTEST / RATE_HZ:g} s",
            where="data.path",
            allowed="; ".join(formats.FORMATS),
        )
    without = sum(item.text is None for item in items)
    if use == "text" and without:
        raise DataError(
            f"no text for {without} of {len(items)} EEG segments",
            where=path,
            allowed="a table beside each recording: its name with .tsv or .csv and the columns "
            "onset_s, duration_s, text; or NAME_events.tsv of BIDS; or  --set data.texts=FILE  "
            "(events to sentences)",
            fix="--set model.stage=encoder",
            hint="without text, this pre-trains the encoder",
        )

    channel_map = None
    facts |= {
        "format": "; ".join(dict.fromkeys(forms.values())),
        "unit": "microvolts, in ZuCo as it documents, else converted from the unit of the file",
        "bad": skipped,
        "without_eeg": dict(sorted(missing.items())),
    }
    if cutter is not None:
        channel_map = cutter.channel_map
        facts |= {
            "notes": few(cutter.notes),
            "channels": max(len(item.channels) for item in items),
            "channels_dropped": few(sorted(cutter.dropped)),
        }
    told = {name: value for name, value in facts.items() if value}
    return Recordings(items, told, channel_map)


def content_of(path: Path) -> Path:
    """The file with the samples of a recording: the largest of a folder, or of those it names."""
    parts = [path, path.with_suffix(".fdt"), path.with_suffix(".eeg")]
    if path.is_dir():
        parts = data_files.files(path)
    stored = filter(Path.is_file, parts)
    return max(stored, key=lambda part: part.stat().st_size, default=path)


def first_parts(path: str) -> dict[Path, str]:
    """The formats of the recordings of a file or folder; of split ones, that of the first part.

    Reads the disk. Raises DataError, also if there is none.
    """
    source = existing_path(path, "; ".join((*formats.FORMATS, *formats.EMBEDDED)))
    forms = {}
    later: set[Path] = set()
    for file in formats.candidates(source):
        form = formats.of_file(file)
        if form is None:
            continue
        forms[file] = form
        if form == formats.FIF:
            # MNE reads the later parts of a split recording with the first.
            with suppress(DataError):  # reading it reports that
                _, *others = open_recording(file).raw.filenames
                later.update(Path(name).resolve() for name in others)
    if not forms:
        raise unknown_format(source, formats.FORMATS)
    return {file: form for file, form in forms.items() if file.resolve() not in later}
