"""Processes that form a world and are shared between tests."""

import gc
import multiprocessing
import os
import sys
import tempfile
import traceback
from datetime import timedelta
from multiprocessing.connection import wait

from torch.distributed import TCPStore

from gearshift.engines.environment import RankInfo

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
    """`size` processes in one world; after a failure the next call gets fresh ones.

    With a smaller `local_size` they are as on several machines, with so many on each.
    """

    def __init__(self, size, device="cpu", local_size=None):
        self.size, self.device, self.local_size = size, device, local_size or size
        self._workers, self._store, self._calls = [], None, 0
        self._folder = None

    def run(self, work, *arguments, ending=()):
        """The result of `work(world, *arguments)` on each rank. Raises RankFailed.

        `work` is a function at the top of a module. The first rank that fails ends all of them; the
        processes of the ranks `ending` may end without a result.
        """
        if self._calls == CALLS:
            self.close()
        if not self._workers:
            self._start()
        self._calls += 1
        for _, pipe in self._workers:
            pipe.send((work, arguments))
        results = dict.fromkeys(ending)
        pipes = {pipe: rank for rank, (_, pipe) in enumerate(self._workers) if rank not in ending}
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
        if ending:
            self.close()
        return [results[rank] for rank in range(self.size)]

    def close(self):
        """Kill the processes."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers, self._store, self._calls = [], None, 0
        if self._folder:
            self._folder.cleanup()

    def _start(self):
        self._folder = tempfile.TemporaryDirectory()  # for the sockets, as of the supervisor
        variables = {"DS_ACCELERATOR": self.device}
        if self.local_size == self.size:
            variables["GEARSHIFT_SOCKETS"] = self._folder.name
        else:  # as in torchrun: the store is outside the workers, at a free port
            self._store = TCPStore(
                "127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=TIMEOUT_S)
            )
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)}
            variables |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GEARSHIFT_RENDEZVOUS": "secret"}
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        preload(self.device)
        for rank in range(self.size):
            here, there = context.Pipe()
            node, local_rank = divmod(rank, self.local_size)
            local_size = min(self.local_size, self.size - node * self.local_size)
            ranks = RankInfo(rank, self.size, local_rank, local_size, node)
            arguments = (there, variables | ranks.variables(), self.device)
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


def _serve(pipe, variables, device):
    os.environ |= variables
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
