"""A rank with a few lines of work, for tests of the supervisor.

Started by the supervisor as `python -m tests.launcher.ranks JOB`; SCENE in the environment
selects the behavior.
"""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import psutil

from gearshift.launcher.run import execute, rank
from gearshift.models.base import DataError
from gearshift.training.callbacks.base import Outcome, Status
from tests.waiting import until

ME = int(os.environ.get("RANK", "0"))


def outcome(code=0, reason="all steps taken"):
    status: Status = "stopped" if code else "completed"
    return Outcome(status, reason, code, 4, 1.0, 0.1, None, None)


def wait_forever():
    """Waits like a collective that one rank never enters."""
    threading.Event().wait()


def work(job):
    resolved, folder, console = job.resolved, job.folder, job.console
    scene = os.environ["SCENE"]
    print(f"rank {ME} of {os.environ.get('WORLD_SIZE', 1)} prints")
    if scene == "settings":
        settings = resolved.settings
        line = [settings.train.seed, settings.optim.lr, resolved.batching.global_batch, console]
        (folder / f"seen-{ME}").write_text(f"{line} {os.environ['OMP_NUM_THREADS']}")
    elif scene == "error" and ME == 1:
        raise ValueError("the second rank failed")
    elif scene == "data":
        raise DataError("data/mine.txt is empty; a text of at least one line")
    elif scene == "killed" and ME == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif scene == "frozen":
        if ME == 0:
            raise RuntimeError("Application timeout caused pair closure")
        wait_forever()
    elif scene == "signal":
        return until_signal(folder)
    elif scene == "stuck":
        signal.signal(signal.SIGINT, lambda *_: (folder / f"interrupted-{ME}").touch())
        (folder / f"ready-{ME}").touch()
        wait_forever()
    elif scene == "memory":
        size = resolved.batching.micro_batch
        with (folder / "attempts").open("a") as file:
            file.write(f"{size}\n")
        if size > 2:
            print(len(b"x" * int(os.environ["FILLS"])))
    elif scene == "listens":
        listen(folder)
    elif scene == "gloo":
        broken_collective(folder)
    if scene in ("error", "killed"):
        (folder / "pid").write_text(str(os.getpid()))
        wait_forever()
    return outcome()


def until_signal(folder):
    """Like the loop: receive the signal, save, end as agreed."""
    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, lambda number, _: caught.append(number))
    (folder / f"ready-{ME}").touch()
    until(lambda: caught)
    (folder / f"saved-{ME}").touch()
    code = 130 if caught[0] == signal.SIGINT else 75
    return outcome(code, signal.Signals(caught[0]).name)


def listen(folder):
    """Join the others; note the sockets of this process that others could connect to."""
    from gearshift.engines.world import open_world

    world = open_world("cpu", 60.0, always_group=False)
    world.wait_for_all()
    sockets = psutil.Process().net_connections("all")
    connectable = [c.laddr for c in sockets if c.status == psutil.CONN_LISTEN]
    connectable += [c.laddr for c in sockets if c.type == socket.SOCK_DGRAM]
    (folder / f"listen-{ME}").write_text(" ".join({address.ip for address in connectable}))
    world.wait_for_all()
    world.close()


def broken_collective(folder):
    """One all-reduce that works; the second rank fails before the next."""
    import torch

    from gearshift.engines.world import open_world

    world = open_world("cpu", 60.0, always_group=False)
    value = torch.tensor(float(ME + 1))
    total = world.sum(value)
    if ME == 1:
        raise ValueError("the second rank failed")
    (folder / "sum").write_text(str(total.item()))
    world.sum(value)


if __name__ == "__main__":
    execute.worker = lambda: work
    rank.serve(Path(sys.argv[1]))
