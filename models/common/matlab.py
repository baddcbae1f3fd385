"""MATLAB 5 files: scipy reads one in another process, with a limit of memory, before."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from gearshift.models.common.data_files import check_expansion, identity, most_unpacked

_SIGNATURE = b"MATLAB 5.0 MAT-file"
_TOO_LARGE = 3
_PROGRAM_BYTES = 2**29
"""Memory of Python and scipy beside what they read."""
_TRY = """
import os, sys
path, limit, variable, *sys.path = sys.argv[1:]
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import resource
from scipy.io import loadmat
_, most = resource.getrlimit(resource.RLIMIT_DATA)
resource.setrlimit(resource.RLIMIT_DATA, (int(limit), most))
try:
    loadmat(path, squeeze_me=True, variable_names=[variable] if variable else None)
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
    limit = _PROGRAM_BYTES + most
    process = subprocess.run(
        [sys.executable, "-c", _TRY, str(path), str(limit), variable, *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # signals to this process are not about the file
    )
    if process.returncode == _TOO_LARGE:
        check_expansion(path, most + 1)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ValueError(f"a process that read it was ended by {name}")
    if process.returncode:
        raise ValueError(process.stderr.decode(errors="replace").strip().rpartition("\n")[2])
