"""Responses of a file or folder, which holds one format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from models.abr import formats
from models.abr.readers import epl, recordings, table
from models.abr.responses import Responses, Row, collect
from models.base import DataError
from models.common.columns import declared_columns
from models.common.data_files import BadRecords, OnBad, existing_path, files, unknown_format

Reader = epl.EplReader | table.TableReader | recordings.RecordingReader
_ORIGINS = {
    formats.EPL: epl.ORIGIN,
    formats.TABLE: table.ORIGIN,
    formats.RECORDING: recordings.ORIGIN,
}


def read_responses(
    path: str,
    on_bad: OnBad,
    averaging: recordings.Averaging,
    columns: Sequence[str] = (),
    has_labels: bool = True,
) -> Responses:
    """The responses of the file or folder `path`; `columns` of tables as "name=meaning".

    Unless `has_labels`, columns of labels are neither required nor read.
    Reads the disk. Raises DataError.
    """
    root = existing_path(
        path, "a file or folder of responses, embedded:patients, embedded:few-patients"
    )
    found = [(file, name) for file in files(root) if (name := formats.of_file(file))]
    if not found:
        raise unknown_format(root, formats.FORMATS)
    names = list(dict.fromkeys(name for _, name in found))
    if len(names) > 1:
        raise DataError(
            f"'{root}' has more than one format: {'; '.join(names)}",
            where="data.path",
            allowed="one format, and so one species and one time window",
            fix="put animals (EPL text) and people (tables, recordings) into separate folders",
        )
    if columns and names != [formats.TABLE]:
        raise DataError(
            f"data.columns names columns of tables, and '{root}' is {names[0]}",
            where="data.columns",
            fix="remove data.columns",
        )
    bad_records = BadRecords("responses" if names == [formats.TABLE] else "files and levels")
    readers: dict[str, Callable[[], Reader]] = {
        formats.EPL: lambda: epl.EplReader(bad_records),
        formats.TABLE: lambda: table.TableReader(
            bad_records, declared_columns(columns), has_labels
        ),
        formats.RECORDING: lambda: recordings.RecordingReader(bad_records, averaging),
    }
    reader = readers[names[0]]()
    responses = collect(_rows(reader, root, found), _ORIGINS[names[0]], bad_records, on_bad)
    if isinstance(reader, table.TableReader):
        reader.check_declared()
    elif isinstance(reader, epl.EplReader):
        responses.marked.update(reader.marked)
    responses.left_out.update({k: v for k, v in vars(reader).items() if isinstance(v, int)})
    return responses


def _rows(reader: Reader, root: Path, found: list[tuple[Path, str]]) -> Iterator[Row]:
    for path, _ in found:
        yield from reader.read(
            path, path.relative_to(root).as_posix() if path != root else path.name
        )
