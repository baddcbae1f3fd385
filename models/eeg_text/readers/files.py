"""The recordings that data.path names: embedded sets, files or folders."""

from __future__ import annotations

from collections import Counter

from models.base import DataError
from models.common.data_files import existing_path, unknown_embedded, unknown_format
from models.eeg_text import embedded, formats
from models.eeg_text.recordings import ReadingOptions, Recordings


def read(path: str, reading: ReadingOptions) -> Recordings:
    """The recordings of `data.path`. Reads the disk; raises DataError."""
    if path in embedded.EMBEDDED:
        return embedded.read(path)
    if path.startswith("embedded:"):
        raise unknown_embedded(path, sorted(embedded.EMBEDDED))
    source = existing_path(path, "; ".join((*formats.FORMATS, ", ".join(formats.EMBEDDED))))
    names = {name for file in formats.candidates(source) if (name := formats.of_file(file))}
    if not names:
        raise unknown_format(source, formats.FORMATS)
    if reading.columns and names == {formats.ZUCO}:
        raise DataError(
            f"data.columns names columns of tables, and '{source}' has ZuCo files, which need none",
            where="data.columns",
            fix="remove data.columns",
        )
    parts = []
    if formats.ZUCO in names:
        from models.eeg_text.readers import zuco

        parts.append(zuco.read(source, reading.on_bad, reading.to_predict))
    if names - {formats.ZUCO}:
        from models.eeg_text.readers import continuous

        parts.append(continuous.read(source, reading))
    return Recordings(
        parts[0].name,
        "; ".join(part.form for part in parts),
        "; ".join(part.unit for part in parts),
        [item for part in parts for item in part.items],
        sum((part.left_out for part in parts), Counter()),
        {key: note for part in parts for key, note in part.notes.items()},
    )


def check_text(recordings: Recordings) -> None:
    """Raise DataError if an EEG segment has no text."""
    without, total = sum(item.text is None for item in recordings.items), len(recordings.items)
    if without:
        some = "any of the" if without == total else f"{without} of the"
        raise DataError(
            f"no text for {some} {total} EEG segments",
            where=recordings.name,
            allowed="a table beside each recording: its name with .tsv or .csv and the columns "
            "onset_s, duration_s, text; or NAME_events.tsv of BIDS; or  --set data.texts=FILE  "
            "(events to sentences)",
            fix="without text, pre-train the encoder:  --set model.stage=encoder",
        )
