"""A single rank that needs more memory than its control group has, for tests of the fork.

Started as `python -m tests.launcher.killed FOLDER BYTES FITS [MICRO_BATCH]`: the rank fills BYTES
if its micro-batch is larger than FITS. With FITS -1 it waits for a signal, with -2 in a library,
where no line of Python runs. Prints the report.
"""

import hashlib
import os
import sys
import threading
from pathlib import Path

from launcher.base import environment
from launcher.run import rank, restart
from launcher.run_folder import run_folder
from launcher.run_folder.run_plan import RunPlan
from tests.launcher.given import resolved
from training.callbacks.base import Outcome

FOLDER, BYTES, FITS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
SIZE = "8" if len(sys.argv) < 5 else sys.argv[4]


def work(job):
    """Note the attempt, then wait, or fill memory."""
    size = job.resolved.batching.micro_batch
    with (FOLDER / "attempts").open("a") as file:
        file.write(f"{size}\n")
    if FITS < 0:
        (FOLDER / "ready").write_text(str(os.getpid()))
        if FITS == -2:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        threading.Event().wait()
    if size > FITS:
        print(len(b"x" * BYTES))
    return Outcome("completed", "all steps taken", 0, 4, 1.0, 0.1, None, None)


def main():
    """Run the job to its end as a command line does."""
    environment.Process.is_own = True
    print("forks" if rank.can_fork() else "trains here")
    settings = resolved("train.global_batch=8", batch_size=SIZE)
    run_folder.create(settings, FOLDER, "x")
    plan = RunPlan(settings, folder=FOLDER, console=True)
    rank.worker = lambda: work
    with rank.stoppable():
        end = restart.repeat(plan, rank.run_forked, lambda end: None)
    print(f"{end.kind}, {end.exit_code}\n{end.text}", flush=True)


if __name__ == "__main__":
    main()
