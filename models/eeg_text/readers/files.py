"""The recordings that data.path names: embedded sets, files or folders."""

from __future__ import annotations

from models.base import DataError
from models.common.data_files import existing_path, unknown_embedded, unknown_format
from models.eeg_text import formats
from models.eeg_text.embedded import source
from models.eeg_text.recordings import Reading, Recordings


def read(path: str, reading: Reading) -> Recordings:
    """The recordings of `data.path`. Reads the disk; raises DataError."""
    if path in source.EMBEDDED:
        return source.read(path)
    if path.startswith("embedded:"):
        raise unknown_embedded(path, sorted(source.EMBEDDED))
    found = existing_path(
        path, f"{'; '.join(formats.FORMATS)}; {', '.join(sorted(source.EMBEDDED))}"
    )
    name = formats.recognise(found)
    if name is None:
        raise unknown_format(found, formats.FORMATS)
    if name == formats.ZUCO:
        from models.eeg_text.readers import zuco

        return zuco.read(found, reading.on_bad)
    from models.eeg_text.readers import continuous

    return continuous.read(found, reading)


def check_text(recordings: Recordings) -> None:
    """Raise DataError if an EEG segment has no text."""
    without, total = sum(item.text is None for item in recordings.items), len(recordings.items)
    if without:
        some = "any of the" if without == total else f"{without} of the"
        raise DataError(
            f"no text for {some} {total} EEG segments",
            where=recordings.name,
            allowed="a table beside each recording, with its name, the suffix .tsv or .csv and the "
            "columns onset_s, duration_s, text; or  --set data.texts=FILE  (events to sentences)",
            fix="without text, pre-train the encoder:  --set model.stage=encoder",
        )
