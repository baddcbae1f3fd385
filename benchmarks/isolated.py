"""A function in processes of its own, one for each rank, with a limit of time."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gearshift.engines.network import interfaces

POLL_S = 0.05

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Result:
    """What was reported, and the error of the first rank that failed; empty: none."""

    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    is_late: bool = False
    """Whether the limit of time ended it."""


def preload(modules: Sequence[str]) -> None:
    """Import `modules` once for all processes; they must not touch a GPU.

    Without it each process imports torch again, some seconds.
    """
    if sys.platform == "linux":
        # A check for GPUs at import must not initialize CUDA: processes are forked afterwards.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        multiprocessing.set_forkserver_preload(list(modules))


def run(
    function: str,
    arguments: Mapping[str, Any],
    ranks: int,
    limit_s: float,
    variables: Mapping[str, str],
    nodes: int = 1,
) -> Result:
    """Call `function` ("module:name") on each rank with `report` and `arguments`.

    Rank 0 reports figures that JSON can hold; a later report replaces an earlier one. Each rank has
    torchrun's variables and `variables`; with `nodes`, those of simulated nodes, each with its own
    GPUs. It is done when rank 0 is; no process is left on return.
    """
    folder = Path(tempfile.mkdtemp(prefix="gearshift-benchmark-"))
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    port = _free_port()
    begin = time.monotonic()
    processes: list[BaseProcess] = []
    try:
        for rank in range(ranks):
            environment = {**variables, **_torchrun(rank, ranks, port, nodes)}
            environment["TMPDIR"] = str(folder)
            given = (function, dict(arguments), rank, folder, environment)
            process = context.Process(target=_serve, args=given)
            process.start()
            processes.append(process)
        error = _wait(processes, folder, begin + limit_s)
        path = folder / "figures.json"
        figures = json.loads(path.read_text()) if path.exists() else {}
        seconds = time.monotonic() - begin
        if error is None:
            return Result(figures, f"took longer than {limit_s:.0f} s", seconds, is_late=True)
        return Result(figures, error, seconds)
    finally:
        for process in processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
            process.join()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(processes: Sequence[BaseProcess], folder: Path, until: float) -> str | None:
    """Wait until rank 0 ends, or any rank fails: the error; None: it takes too long."""
    while time.monotonic() < until:
        if processes[0].exitcode == 0:
            return ""  # the others may fail now that it left
        for rank, process in enumerate(processes):
            if process.exitcode not in (None, 0):
                return _last_line(folder / f"{rank}.txt") or f"exit code {process.exitcode}"
        time.sleep(POLL_S)
    return None


def _serve(
    function: str, arguments: Mapping[str, Any], rank: int, folder: Path, variables: dict[str, str]
) -> None:
    """Run one rank; ends the process without the threads of gloo, which may abort it."""
    os.setsid()  # so that processes it starts are killed with it
    os.environ |= variables
    tempfile.tempdir = None
    output = os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)

    def report(figures: Mapping[str, Any]) -> None:
        if rank == 0:
            partial = folder / "partial.json"
            partial.write_text(json.dumps(figures))
            partial.replace(folder / "figures.json")

    try:
        module, _, name = function.partition(":")
        getattr(import_module(module), name)(report, **arguments)
    except BaseException as error:  # the border of the process: any error becomes a row
        traceback.print_exc()
        message = str(error).strip().partition("\n")[0]
        print(f"{type(error).__name__}: {message}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _torchrun(rank: int, ranks: int, port: int, nodes: int) -> dict[str, str]:
    size = ranks // nodes
    node, local_rank = divmod(rank, size)
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": str(node),
        "MASTER_ADDR": "127.0.0.1" if nodes == 1 else _address(),
        "MASTER_PORT": str(port),
    }
    if nodes > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(ranks)))
        mine = visible.split(",")[node * size : (node + 1) * size]
        variables |= {"CUDA_VISIBLE_DEVICES": ",".join(mine), "GLOO_SOCKET_IFNAME": "lo"}
    return variables


def _address() -> str:
    """The first address of this machine that other nodes could reach, if there is one."""
    found = [address for addresses in interfaces().values() for address in addresses[:1]]
    return next((each for each in found if not each.startswith("127.")), "127.0.0.1")


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _last_line(path: Path) -> str:
    """The last line of an output that is not empty, shortened."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
