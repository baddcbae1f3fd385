"""A rank with a few lines of work, for tests of the supervisor.

Started by the supervisor as `python -m tests.launcher.ranks JOB`; SCENE in the environment
selects the behavior.
"""

import json
import os
import signal
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
    elif scene == "stranger":
        listen_beside_a_stranger(folder)
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


def listen_beside_a_stranger(folder):
    """Joins the others while somebody sets the key that ends a run; notes where ranks listen."""
    from torch.distributed import TCPStore

    from gearshift.engines.world import open_world

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    stranger = TCPStore(address, port, is_master=False)
    for key in ("attempt-0/result", "/attempt-0/result"):
        stranger.set(key, json.dumps(["a stranger's text", []]))
    world = open_world("cpu", 60.0, always_group=False)
    mine, of_supervisor = (
        [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        for process in (psutil.Process(), psutil.Process().parent())
    )
    mine += [c for c in of_supervisor if c.laddr.port == port]  # beside those of other tests
    (folder / f"listen-{ME}").write_text(" ".join({c.laddr.ip for c in mine}))
    world.barrier()
    world.close()


def broken_collective(folder):
    """One all-reduce that works; the second rank fails before the next."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    value = torch.tensor(float(ME + 1))
    dist.all_reduce(value)
    if ME == 1:
        raise ValueError("the second rank failed")
    (folder / "sum").write_text(str(value.item()))
    dist.all_reduce(value)


if __name__ == "__main__":
    execute.worker = lambda: work
    rank.serve(Path(sys.argv[1]))
