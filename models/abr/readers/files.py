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
from models.common.predictions import passed_over
from models.common.recordings import bids
from models.common.table import declared_columns

Reader = epl.EplReader | table.TableReader | recordings.RecordingReader


@dataclass(frozen=True)
class Names:
    """What names in tables mean, each as "name=meaning"."""

    columns: Sequence[str] = ()
    classes: Sequence[str] = ()


NO_NAMES = Names()


def read_responses(
    path: str, on_bad: OnBad, averaging: recordings.Averaging, names: Names = NO_NAMES
) -> Responses:
    """The responses of the file or folder `path`; `names` are those of tables.

    Reads the disk. Raises DataError.
    """
    reader, root, rows = _open(path, averaging, names, has_labels=True)
    for key, values in (("data.columns", names.columns), ("data.classes", names.classes)):
        if values and not isinstance(reader, table.TableReader):
            kind, form = key.partition(".")[2], reader.format
            message = f"{key} names {kind} of tables, and '{root}' is {form}"
            raise DataError(message, where=key, fix=f"remove {key}")
    responses = collect(rows, reader.origin, reader.bad_records, on_bad)
    if isinstance(reader, table.TableReader):
        reader.check_declared()
    if isinstance(reader, epl.EplReader):
        responses.marked.update(reader.marked)
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


def read_unlabeled(path: str, on_bad: OnBad, averaging: recordings.Averaging, names: Names) -> Unlabeled:
    """As read_responses, but labels are not read and duplicates are kept; in memory."""
    reader, root, given = _open(path, averaging, names, has_labels=False)
    inputs = [file for file in files(root) if formats.of_file(file)]
    others = passed_over(root, [*inputs, *filter(None, map(bids.events_path, inputs))])
    rows = []
    for row in given:
        if (problem := impossible(row)) is None:
            rows.append(row)
        else:
            reader.bad_records.add(row.where, problem)
    left_out = {"skipped": reader.bad_records.finish(on_bad, len(rows)), **_left_out(reader)}
    left_out = {name: count for name, count in left_out.items() if count}
    if not rows:
        counts = ", ".join(f"{count} {name}" for name, count in left_out.items())
        where, allowed = f"data.path, left out: {counts or 'nothing'}", "; ".join(formats.FORMATS)
        raise DataError(f"'{root}' has no usable response", where=where, allowed=allowed)
    notes = [*reader.notes, *(prediction.text for prediction in others)]
    return Unlabeled(reader.origin, rows, left_out, notes)


def _open(
    path: str, averaging: recordings.Averaging, names: Names, has_labels: bool
) -> tuple[Reader, Path, Iterator[ResponseRow]]:
    """The reader of the format of `path`, the path and its responses. Raises DataError."""
    allowed = f"a file or folder of responses, {', '.join(formats.EMBEDDED)}"
    root = existing_path(path, allowed)
    form_of = {file: form for file in files(root) if (form := formats.of_file(file))}
    forms = list(dict.fromkeys(form_of.values()))
    if not forms:
        raise unknown_format(root, formats.FORMATS)
    if len(forms) > 1:
        raise DataError(
            f"'{root}' has more than one format: {'; '.join(forms)}",
            where="data.path",
            allowed="one format, and so one species and one time window",
            fix="put animals (EPL text) and people (tables, recordings) into separate folders",
        )
    reader: Reader
    if forms == [formats.TABLE]:
        columns, classes = declared_columns(names.columns), declared_columns(names.classes)
        reader = table.TableReader(BadRecords("responses"), columns, has_labels, classes)
    elif forms == [formats.EPL]:
        reader = epl.EplReader(BadRecords("files and levels"), has_labels)
    else:
        reader = recordings.RecordingReader(BadRecords("files and levels"), averaging)
    name_of = {file: file.relative_to(root).as_posix() if file != root else file.name for file in form_of}
    return reader, root, (row for file, name in name_of.items() for row in reader.read(file, name))


def _left_out(reader: Reader) -> dict[str, int]:
    """The counts of a reader, which are its public numbers."""
    return {k: v for k, v in vars(reader).items() if type(v) is int}
