"""All that a run learns from: the embedded sets, or the recordings under a path."""

from __future__ import annotations

from models.base import DataError
from models.common.data_files import existing_path, unknown_embedded, unknown_format
from models.eeg_text import formats
from models.eeg_text.embedded import source
from models.eeg_text.recordings import Reading, Recordings


def read(path: str, reading: Reading) -> Recordings:
    """What `data.path` names. Touches disk; raises DataError."""
    if path in source.EMBEDDED:
        return source.read(path)
    if path.startswith("embedded:"):
        raise unknown_embedded(path, sorted(source.EMBEDDED))
    place = existing_path(
        path, f"{'; '.join(formats.FORMATS)}; {', '.join(sorted(source.EMBEDDED))}"
    )
    form = formats.recognise(place)
    if form is None:
        raise unknown_format(place, formats.FORMATS)
    if form == formats.ZUCO:
        from models.eeg_text.readers import zuco

        return zuco.read(place, reading.on_bad)
    from models.eeg_text.readers import continuous

    return continuous.read(place, reading)


def check_text(recordings: Recordings) -> None:
    """Raises DataError where no text is known of EEG."""
    without = sum(item.text is None for item in recordings.items)
    if without:
        raise DataError(
            f"of {without} of {len(recordings.items)} stretches of EEG nobody knows what was read",
            where=recordings.name,
            allowed="a file beside each recording, of its name and ending in .tsv or .csv, with "
            "onset_s, duration_s and text; or  --set data.texts=FILE  from events to sentences",
            fix="without text, learn the EEG alone:  --set model.stage=encoder",
        )
