"""A program that takes a step for each line of its input, and prints the requested actions."""

import hashlib
import os
import select
import signal
import sys
import threading
from functools import partial

from gearshift.launcher.base import signals
from gearshift.launcher.base.signals import ProcessPhase
from gearshift.training.callbacks.preemption import Preemption
from tests.training.facts import outcome, step, train_plan


def main(where):
    events = []

    def record_event(kind, facts):
        events.append(f"{kind} {facts['names']}")

    preempt = Preemption(record_event, partial(signals.phase, ProcessPhase.TRAINS))
    preempt.start(train_plan())
    child, reader = fork_a_worker() if where == "forked" else (0, 0)
    print("ready", child, flush=True)
    if where == "busy":
        # Minutes of arithmetic without a line of Python, as in a backward or a collective.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    for line in sys.stdin:
        if line == "end\n":
            break
        if line == "worker\n":
            os.read(reader, 1)
            print("alive", flush=True)
            continue
        print(int(preempt.step(step(1))), *events, flush=True)
    preempt.end(outcome())
    print("ended", flush=True)
    sys.stdin.read()


def fork_a_worker():
    """A child that lives as long as this process, and a pipe on which it responds to SIGUSR2."""
    read_end, write_end = os.pipe()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(write_end)
        signal.signal(signal.SIGUSR2, lambda number, frame: os.write(writer, b"!"))
        os.write(writer, b"!")
        # Never for long: a handler waits during a blocking call that began just after its signal.
        while not select.select([read_end], [], [], 0.01)[0]:
            pass
        os._exit(0)
    os.read(reader, 1)
    return child, reader


if __name__ == "__main__":
    if sys.argv[1] == "thread":
        thread = threading.Thread(target=main, args=("thread",))
        thread.start()
        thread.join()
    else:
        main(sys.argv[1])
