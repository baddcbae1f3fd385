"""Processes that form a world and are shared between tests."""

import gc
import multiprocessing
import os
import sys
import traceback
from datetime import timedelta
from multiprocessing.connection import wait

from torch.distributed import TCPStore

TIMEOUT_S = 120.0
CALLS = 40
"""Then come fresh processes: each engine zero3 leaves a group whose threads wake up all the time.
With 290 groups each, three idle processes took a core."""


def preload(device):
    """Let the server that forks processes import torch once, which saves seconds a process.

    To be called before anything starts that server. macOS cannot fork after these imports.
    """
    deepspeed = ["tests.engines.deepspeed_on_cpu"] if device == "cpu" else []
    multiprocessing.set_forkserver_preload(["torch.distributed.fsdp", "torch._dynamo", *deepspeed])


class RankFailed(Exception):
    """A rank raised, ended or did not respond; the text is its traceback."""


class Pool:
    """`size` processes in one world; after a failure the next call gets fresh ones."""

    def __init__(self, size, device="cpu"):
        self.size, self.device = size, device
        self._workers, self._store, self._calls = [], None, 0

    def run(self, work, *arguments):
        """The result of `work(world, *arguments)` on each rank. Raises RankFailed.

        `work` is a function at the top of a module. The first rank that fails ends all of them.
        """
        if self._calls == CALLS:
            self.close()
        if not self._workers:
            self._start()
        self._calls += 1
        for _, pipe in self._workers:
            pipe.send((work, arguments))
        results = {}
        pipes = {pipe: rank for rank, (_, pipe) in enumerate(self._workers)}
        try:
            while pipes:
                ready = wait(list(pipes), TIMEOUT_S)
                if not ready:
                    raise RankFailed(f"ranks {sorted(pipes.values())} did not respond")
                for pipe in ready:
                    rank = pipes.pop(pipe)
                    results[rank] = _receive(pipe, rank)
        except RankFailed:
            self.close()
            raise
        return [results[rank] for rank in range(self.size)]

    def close(self):
        """Kill the processes."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers, self._store, self._calls = [], None, 0

    def _start(self):
        # As in torchrun: the store is outside the workers, at a free port.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=TIMEOUT_S))
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        preload(self.device)
        for rank in range(self.size):
            here, there = context.Pipe()
            arguments = (there, rank, self.size, self._store.port, self.device)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._workers.append((process, here))


def _receive(pipe, rank):
    try:
        error, value = pipe.recv()
    except EOFError:
        raise RankFailed(f"rank {rank} ended without a result") from None
    if error:
        raise RankFailed(f"rank {rank}:\n{error}")
    return value


def _serve(pipe, rank, size, port, device):
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(size))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "DS_ACCELERATOR": device}
    import torch

    from gearshift.engines.world import open_world

    gc.freeze()  # DeepSpeed collects garbage for each engine, also among all that is imported
    torch.set_num_threads(1)
    world = open_world(device, TIMEOUT_S / 2, always_group=True)
    while True:
        work, arguments = pipe.recv()
        try:
            pipe.send((None, work(world, *arguments)))
        except Exception:
            # The process boundary: every error is sent to the test.
            pipe.send((traceback.format_exc(), None))
