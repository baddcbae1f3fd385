"""Mutations that fast tests must catch: small faults at lines that matter, one at a time.

    python -m scripts.mutations [--only N ...]

Changes a copy of the checkout, runs the named tests, and prints which test caught each mutation and
how long it took.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 60
"""For the tests of one mutation on two idle cores; what takes longer counts as missed."""
PYTEST = ("-m", "pytest", "-qx", "-n", "0", "--tb=no", "-p", "no:cacheprovider")


Mutation = namedtuple("Mutation", "file test why old new")


def _parsed(table: str) -> Iterator[Mutation]:
    for line in table.splitlines():
        if line.startswith("#"):
            continue
        text = line.lstrip()
        depth = len(line) - len(text)
        if depth == 0:
            file, test = text.split(" | ")
        elif depth == 4:
            why = text
        else:
            yield Mutation(file, test, why, *text.split(" => "))


MUTATIONS = list(_parsed((ROOT / "scripts" / "mutations.txt").read_text()))


def catching_test(mutation: Mutation, copy: Path) -> str | None:
    """The test that fails with the mutation in the folder `copy`; None: all pass, or too late."""
    file = copy / mutation.file
    text = file.read_text()
    file.write_text(text.replace(mutation.old, mutation.new))
    command = [sys.executable, *PYTEST, f"tests/{mutation.test}"]
    given = {
        "cwd": copy,
        "env": {**os.environ, "PYTHONPATH": str(copy / "src")},
        "timeout": TIMEOUT_S,
    }
    try:
        done = subprocess.run(command, capture_output=True, text=True, **given)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        return None
    finally:
        file.write_text(text)
    failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"exit code {done.returncode}" if done.returncode else None


def main() -> int:
    """Print a row for each mutation; exit code 1 if one was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", type=int, nargs="+", default=range(1, len(MUTATIONS) + 1), metavar="N"
    )
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
        for name in (name for name in names if os.path.lexists(ROOT / name)):
            (copy := Path(folder, name)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy, follow_symlinks=False)  # those below src/ stay links
        for number in parser.parse_args().only:
            mutation = MUTATIONS[number - 1]
            began = time.monotonic()
            test = catching_test(mutation, Path(folder))
            seconds = time.monotonic() - began
            missed += test is None
            result = f"caught  {test}" if test else "MISSED"
            print(f"{number:3d}  {mutation.file}: {mutation.why}")
            print(f"     {seconds:3.0f} s  {result}", flush=True)
    print(f"{missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
