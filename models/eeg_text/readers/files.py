"""The recordings that data.path names: embedded sets, files or folders."""

from __future__ import annotations

from collections.abc import Mapping

from models.base import DataError
from models.common.data_files import existing_path, unknown_embedded, unknown_format
from models.eeg_text import embedded, formats
from models.eeg_text.config import Data
from models.eeg_text.recordings import Recordings, Use


def read(path: str, data: Data, use: Use, channel_map: Mapping[str, str] | None = None) -> Recordings:
    """The recordings at `path`, read by the settings `data`.

    `channel_map`: the content of data.channels, if it was read before. Settings without effect are
    not read. Reads the disk; raises DataError.
    """
    if path in formats.EMBEDDED:
        return embedded.read(path)
    if path.startswith("embedded:"):
        raise unknown_embedded(path, formats.EMBEDDED)
    source = existing_path(path, "; ".join((*formats.FORMATS, ", ".join(formats.EMBEDDED))))
    names = {name for file in formats.candidates(source) if (name := formats.of_file(file))}
    if not names:
        raise unknown_format(source, formats.FORMATS)
    parts = []
    if formats.ZUCO in names:
        from models.eeg_text.readers import zuco

        if names == {formats.ZUCO} and data.columns:
            raise DataError(
                f"data.columns names columns of tables, and '{source}' has ZuCo files, which need none",
                where="data.columns",
                fix="remove data.columns",
            )
        parts.append(zuco.read(source, data.on_bad, use))
    if names != {formats.ZUCO}:
        from models.eeg_text.readers import continuous

        parts.append(continuous.read(source, data, use, channel_map))
    items = [item for part in parts for item in part.items]
    without = sum(item.text is None for item in items)
    if use == "text" and without:
        some = "any of the" if without == len(items) else f"{without} of the"
        raise DataError(
            f"no text for {some} {len(items)} EEG segments",
            where=parts[0].name,
            allowed="a table beside each recording: its name with .tsv or .csv and the columns "
            "onset_s, duration_s, text; or NAME_events.tsv of BIDS; or  --set data.texts=FILE  "
            "(events to sentences)",
            fix="without text, pre-train the encoder:  --set model.stage=encoder",
        )
    facts = {key: value for part in parts for key, value in part.facts.items()}
    for key in ("format", "unit"):
        facts[key] = "; ".join(part.facts[key] for part in parts)
    return Recordings(parts[0].name, items, facts, parts[-1].channel_map)
