"""MATLAB 5 files: scipy reads one in another process, with a limit of memory, before."""

from __future__ import annotations

import json
import signal
from functools import cache
from pathlib import Path

from gearshift.models.common import trial
from gearshift.models.common.data_files import check_expansion, identity, most_unpacked

_SIGNATURE = b"MATLAB 5.0 MAT-file"
_TOO_LARGE = 3
_TRY = """
import json
from scipy.io import loadmat
path, names = json.load(sys.stdin)
try:
    loadmat(path, squeeze_me=True, variable_names=names)
except MemoryError:
    sys.exit(3)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def check(path: Path, variable: str = "") -> None:
    """Raise an error if scipy cannot read a MATLAB 5 file, ends its process or fills its memory.

    A few random damages in a hundred do; one file may do the one or the other, by chance. Files of
    other formats pass. `variable`: the one that will be read; without it, all are.

    Reads the disk in another process, once for a file as it is. Raises ValueError, and DataError
    as `check_expansion`.
    """
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            _check(path, identity(path), variable)


@cache
def _check(path: Path, as_it_is: tuple[int, ...], variable: str) -> None:
    most = most_unpacked(path)
    inputs = json.dumps([str(path), [variable] if variable else None])
    process = trial.run(_TRY, inputs, most)
    if process.returncode == _TOO_LARGE:
        check_expansion(path, most + 1)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ValueError(f"a process that read it was ended by {name}")
    if process.returncode:
        raise ValueError(process.stderr.strip().rpartition("\n")[2])
