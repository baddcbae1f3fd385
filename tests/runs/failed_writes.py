"""Runs a small training for each kind of write, which fails once; prints a line of JSON for each.

In a process with the library of failed_writes.c. Each run is a fork: imports take most of the time.
"""

import errno
import itertools
import json
import os
import re
import shutil
import sys
import traceback
from pathlib import Path

import gearshift.launcher.report.report
import gearshift.launcher.run.worker
import gearshift.models.language.task  # noqa: F401
from gearshift.launcher.__main__ import program

RUN = ["--model", "language:tiny", "--max-steps", "2", "--engine", "local", "--seq-len", "32"]
RUN += [f"--set={text}" for text in ("save.every=1", "eval.every=1", "eval.samples=4")]
RUN += [f"--set={text}" for text in ("train.micro_batch=2", "train.accumulation=1", "device=cpu")]


def run(folder, arguments, **variables):
    """The exit code and the output of a run in a fork."""
    output = folder / "output"
    child = os.fork()
    if child == 0:
        os.environ.update(variables)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["launcher", *arguments]
        code = 99
        try:
            program()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")


def kinds(log):
    """One write of each kind: the call, and a pattern of its path below the folder of runs."""
    found = {}
    for line in log.read_text().splitlines():
        call, _, name = line.partition(" ")
        pattern = re.sub(r"\.[0-9a-f]{8}$", ".????????", name)
        found.setdefault((call, re.sub(r"step-\d+", "step-N", pattern)), (call, pattern))
    return list(found.values())


def main(folder, part, parts):
    """Fail one of `parts` of all kinds of writes, each with ENOSPC and with EIO."""
    runs = folder / "runs"
    started = [*RUN, "--out", str(runs / "a")]
    code, output = run(folder, started, FAULT_LOG=str(folder / "log"))
    assert code == 0, output
    faults = list(itertools.product(kinds(folder / "log"), (errno.ENOSPC, errno.EIO)))
    for number, ((call, name), error) in enumerate(faults[part::parts]):
        shutil.rmtree(runs)
        done = folder / f"failed-{number}"
        fault = {"FAULT_CALL": call, "FAULT_NAME": name, "FAULT_ERROR": str(error)}
        code, output = run(folder, started, **fault, FAULT_DONE=str(done))
        was_left = (runs / "a").exists()
        again, resumed = run(folder, [*started, "--resume", "auto"])
        row = {
            "call": f"{call} {name} {errno.errorcode[error]}",
            "has_failed": done.exists(),
            "code": code,
            "output": output,
            "was_left": was_left,
            "resumed": again,
            "output_resumed": resumed,
            "files": sorted(path.name for path in (runs / "a").iterdir()),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
