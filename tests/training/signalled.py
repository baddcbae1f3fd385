"""A program that takes a step for each line of its input, and tells what its signals ask for."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Mapping

from tests.training.facts import budget, outcome, step
from training.preempt import Preempt


def main(where: str) -> None:
    told: list[str] = []

    def tell(kind: str, facts: Mapping[str, object]) -> None:
        told.append(f"{kind} {facts['names']}")

    preempt = Preempt(tell)
    preempt.start(budget())
    child = fork_a_worker() if where == "forked" else 0
    print("ready", child, flush=True)
    if where == "busy":
        # Minutes of arithmetic without a line of Python, as in a backward or a collective.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    for line in sys.stdin:
        if line == "end\n":
            break
        print(int(preempt.step(step(1))), *told, flush=True)
    preempt.end(outcome())
    print("ended", flush=True)
    sys.stdin.read()


def fork_a_worker() -> int:
    """A child that waits, as loader workers do, for as long as this process lives."""
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    return child


if __name__ == "__main__":
    if sys.argv[1] == "thread":
        thread = threading.Thread(target=main, args=("thread",))
        thread.start()
        thread.join()
    else:
        main(sys.argv[1])
