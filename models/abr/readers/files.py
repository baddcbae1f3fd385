"""A file or folder of responses, in the one format that it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.abr import formats
from models.abr.readers import epl, recordings, table
from models.abr.responses import Responses, Row, collect
from models.base import DataError
from models.common.data_files import BadRecords, OnBad, existing_path, unknown_format

Reader = epl.EplReader | table.TableReader | recordings.RecordingReader
_ORIGINS = {
    formats.EPL: epl.ORIGIN,
    formats.TABLE: table.ORIGIN,
    formats.RECORDING: recordings.ORIGIN,
}


def read_responses(path: str, on_bad: OnBad, averaging: recordings.Averaging) -> Responses:
    """The responses of the file or folder `path`. Reads the disk. Raises DataError."""
    root = existing_path(
        path, "a file or folder of responses, embedded:patients, embedded:few-patients"
    )
    found = list(formats.recognised(root))
    if not found:
        raise unknown_format(root, formats.FORMATS)
    words = list(dict.fromkeys(word for _, word in found))
    if len(words) > 1:
        raise DataError(
            f"'{root}' holds more than one format: {'; '.join(words)}",
            where="data.path",
            allowed="one format, and so one species and one window of time",
            fix="keep animals (EPL text) and people (tables, recordings) in folders of their own",
        )
    bad_records = BadRecords("responses" if words == [formats.TABLE] else "files and levels")
    reader = _reader(words[0], bad_records, averaging)
    responses = collect(_rows(reader, root, found), _ORIGINS[words[0]], bad_records, on_bad)
    responses.left_out.update({k: v for k, v in vars(reader).items() if isinstance(v, int)})
    return responses


def _reader(word: str, bad_records: BadRecords, averaging: recordings.Averaging) -> Reader:
    if word == formats.EPL:
        return epl.EplReader(bad_records)
    if word == formats.TABLE:
        return table.TableReader(bad_records)
    return recordings.RecordingReader(bad_records, averaging)


def _rows(reader: Reader, root: Path, found: list[tuple[Path, str]]) -> Iterator[Row]:
    for path, _ in found:
        yield from reader.read(
            path, path.relative_to(root).as_posix() if path != root else path.name
        )
