"""Responses of a file or folder, which holds one format."""

from __future__ import annotations

from typing import Any

from models.abr import formats
from models.abr.config import Data
from models.abr.readers import epl, recordings, table
from models.abr.responses import ResponseReading, Responses, collect
from models.base import DataError
from models.common.data_files import existing_path, files, unknown_format

READERS: dict[str, Any] = {formats.EPL: epl, formats.TABLE: table, formats.RECORDING: recordings}
"""By format, the module with its `ORIGIN`, and `read`, which yields the rows of a file."""


def read_responses(path: str, settings: Data, has_labels: bool = True) -> Responses:
    """The responses of the file or folder `path`; without labels, duplicates are kept.

    Reads the disk. Raises DataError.
    """
    root = existing_path(path, f"a file or folder of responses, {', '.join(formats.EMBEDDED)}")
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
    reader, reading = READERS[forms[0]], ResponseReading(settings, has_labels)
    names = {file: file.relative_to(root).as_posix() if file != root else file.name for file in form_of}
    rows = (row for file, name in names.items() for row in reader.read(file, name, reading))
    responses = collect(rows, reader.ORIGIN, reading)
    if reader is table:
        table.check_declared(reading)
    return responses
