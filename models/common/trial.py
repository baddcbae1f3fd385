"""A trial in another process of what may not end, fill the memory or end its process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM_BYTES = 2**29
"""Memory of Python and of libraries that a trial imports."""
_BEGIN = """
import os, resource, sys
def limit(kind, most):
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
memory, seconds, paths = sys.argv[1:]
sys.path[:] = paths.split("\\n")
# A thread for each processor would take memory; and no trial needs torch.
os.environ.update(OPENBLAS_NUM_THREADS="1", USE_TORCH="0")
limit(resource.RLIMIT_CPU, int(seconds))
limit(resource.RLIMIT_DATA, int(memory))
"""


def run(
    program: str, inputs: str, most_bytes: int, cpu_s: int = 3600
) -> subprocess.CompletedProcess[str]:
    """Run a Python program that reads `inputs`; return how it ended and what it wrote to stderr.

    It may use `most_bytes` of memory beside PROGRAM_BYTES; above, it raises MemoryError. After
    `cpu_s` of processor time SIGXCPU ends it.
    """
    arguments = [str(PROGRAM_BYTES + most_bytes), str(cpu_s), "\n".join(sys.path)]
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + program, *arguments],
        input=inputs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # signals to this process are not about the trial
    )
