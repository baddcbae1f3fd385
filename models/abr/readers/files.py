"""Responses of a file or folder, which holds one format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.abr import formats
from models.abr.readers import epl, recordings, table
from models.abr.responses import ResponseOrigin, ResponseRow, Responses, collect, impossible
from models.base import DataError
from models.common.data_files import BadRecords, OnBad, existing_path, files, unknown_format
from models.common.table import declared_columns

Reader = epl.EplReader | table.TableReader | recordings.RecordingReader
_ORIGINS = {
    formats.EPL: epl.ORIGIN,
    formats.TABLE: table.ORIGIN,
    formats.RECORDING: recordings.ORIGIN,
}


@dataclass(frozen=True)
class Names:
    """What names in tables mean, each as "name=meaning"."""

    columns: Sequence[str] = ()
    classes: Sequence[str] = ()


NO_NAMES = Names()


def read_responses(
    path: str,
    on_bad: OnBad,
    averaging: recordings.Averaging,
    names: Names = NO_NAMES,
    has_labels: bool = True,
) -> Responses:
    """The responses of the file or folder `path`; `names` are those of tables.

    Unless `has_labels`, columns of labels are neither required nor read.
    Reads the disk. Raises DataError.
    """
    root, paths, form = _find(path)
    for key, values in (("data.columns", names.columns), ("data.classes", names.classes)):
        if values and form != formats.TABLE:
            raise DataError(
                f"{key} names {key.partition('.')[2]} of tables, and '{root}' is {form}",
                where=key,
                fix=f"remove {key}",
            )
    bad_records = _bad_records(form)
    reader = _reader(form, bad_records, averaging, names, has_labels)
    responses = collect(_rows(reader, root, paths), _ORIGINS[form], bad_records, on_bad)
    if isinstance(reader, table.TableReader):
        reader.check_declared()
    if isinstance(reader, epl.EplReader):
        responses.marked.update(reader.marked)
    else:
        responses.notes.extend(reader.notes)
    responses.left_out.update(_left_out(reader))
    return responses


@dataclass(frozen=True)
class Unlabeled:
    """Responses without labels."""

    origin: ResponseOrigin
    rows: Sequence[ResponseRow]
    left_out: Mapping[str, int]
    """Counts of unused responses, by reason, without those that are 0."""
    notes: Sequence[str] = ()
    """What the user should know about how files were read."""


def read_unlabeled(
    path: str, on_bad: OnBad, averaging: recordings.Averaging, names: Names
) -> Unlabeled:
    """As read_responses, but labels are not read and duplicates are kept; in memory."""
    root, paths, form = _find(path)
    bad_records = _bad_records(form)
    reader = _reader(form, bad_records, averaging, names, has_labels=False)
    rows = []
    for row in _rows(reader, root, paths):
        if (problem := impossible(row)) is None:
            rows.append(row)
        else:
            bad_records.add(row.where, problem)
    skipped = bad_records.finish(on_bad, len(rows))
    left_out = {"skipped": skipped, **_left_out(reader)}
    left_out = {name: count for name, count in left_out.items() if count}
    if not rows:
        counts = ", ".join(f"{count} {name}" for name, count in left_out.items())
        raise DataError(
            f"'{root}' has no usable response",
            where=f"data.path, left out: {counts or 'nothing'}",
            allowed="; ".join(formats.FORMATS),
        )
    notes = [] if isinstance(reader, epl.EplReader) else reader.notes
    return Unlabeled(_ORIGINS[form], rows, left_out, notes)


def _find(path: str) -> tuple[Path, list[Path], str]:
    root = existing_path(
        path, "a file or folder of responses, embedded:patients, embedded:few-patients"
    )
    formats_of = {file: name for file in files(root) if (name := formats.of_file(file))}
    if not formats_of:
        if (refusal := formats.refusal(root)) is not None:
            raise refusal
        raise unknown_format(root, formats.FORMATS)
    names = list(dict.fromkeys(formats_of.values()))
    if len(names) > 1:
        raise DataError(
            f"'{root}' has more than one format: {'; '.join(names)}",
            where="data.path",
            allowed="one format, and so one species and one time window",
            fix="put animals (EPL text) and people (tables, recordings) into separate folders",
        )
    return root, list(formats_of), names[0]


def _bad_records(form: str) -> BadRecords:
    return BadRecords("responses" if form == formats.TABLE else "files and levels")


def _reader(
    form: str,
    bad_records: BadRecords,
    averaging: recordings.Averaging,
    names: Names,
    has_labels: bool,
) -> Reader:
    if form == formats.EPL:
        return epl.EplReader(bad_records, has_labels)
    if form == formats.TABLE:
        return table.TableReader(
            bad_records,
            declared_columns(names.columns),
            has_labels,
            declared_columns(names.classes),
        )
    return recordings.RecordingReader(bad_records, averaging)


def _left_out(reader: Reader) -> dict[str, int]:
    """The counts of a reader, which are its public numbers."""
    return {k: v for k, v in vars(reader).items() if type(v) is int}


def _rows(reader: Reader, root: Path, paths: Sequence[Path]) -> Iterator[ResponseRow]:
    for path in paths:
        yield from reader.read(
            path, path.relative_to(root).as_posix() if path != root else path.name
        )
