"""Responses of a file or folder, which holds one format."""

from __future__ import annotations

from itertools import chain
from typing import Any

from gearshift.models.abr import formats
from gearshift.models.abr.config import Data
from gearshift.models.abr.readers import epl, recordings, table
from gearshift.models.abr.responses import ResponseReading, Responses, collect
from gearshift.models.base import DataError
from gearshift.models.common.data_files import existing_path, known_files

READERS: dict[str, Any] = {formats.EPL: epl, formats.TABLE: table, formats.RECORDING: recordings}
"""By format, the module with its `ORIGIN`, and `read`, which yields the rows of a file."""


def read_responses(
    path: str,
    settings: Data,
    has_labels: bool = True,
) -> Responses:
    """The responses of the file or folder `path`; without labels, duplicates are kept.

    Reads the disk. Raises DataError.
    """
    root = existing_path(path, f"a file or folder of responses, {', '.join(formats.EMBEDDED)}")
    known = known_files(root, formats.of_file, formats.FORMATS)
    forms = list(dict.fromkeys(form for _, form in known.values()))
    if len(forms) > 1:
        raise DataError(
            f"'{root}' has more than one format: {'; '.join(forms)}",
            where="data.path",
            allowed="one format, and so one species and one time window",
            hint="put animals (EPL text) and people (tables, recordings) into separate folders",
        )
    reader = READERS[forms[0]]
    reading = ResponseReading(settings, has_labels)
    rows = chain.from_iterable(
        reader.read(file, name, reading) for name, (file, _) in known.items()
    )
    return collect(rows, reader.ORIGIN, reading)
