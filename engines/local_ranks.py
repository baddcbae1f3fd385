"""Connections between the ranks of one machine, which no other user can reach."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import select
import shutil
import socket
import tempfile
import time
from array import array
from collections.abc import Collection, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from gearshift.engines import environment
from gearshift.engines.base import EngineError, PeersMissing
from gearshift.engines.environment import FOLDER, OWNER, SECRET, RankInfo

_PAUSE_S = 0.02


class LocalRanks:
    """A connection to each other rank of this machine, which ends with the process of that rank.

    Messages have the number of their exchange: what an interrupted exchange has left is not taken
    for a message of a later one.
    """

    def __init__(self, info: RankInfo, limit_s: float):
        """Connect to all others. Collective.

        Each rank listens at a socket in a folder that only this user can enter, until all are
        connected. Raises EngineError if there is no such folder, and PeersMissing, with the ranks
        that have not come within `limit_s`.
        """
        self.ranks = {info.local_rank: info.rank}
        """By local rank."""
        self.secret = secrets.token_hex()
        """That of the first rank, on all."""
        self._info = info
        self._deadline = time.monotonic() + limit_s
        self._connections: dict[int, Connection] = {}
        self._received: dict[tuple[int, int], list[int]] = {}
        """By rank and exchange."""
        self._files: list[Any] = []
        self._owns_folder = False
        if info.local_size == 1:
            return
        # A data-loader worker would keep the files open after this process has ended.
        os.register_at_fork(after_in_child=self._close_files)
        name = environment.variables().get(FOLDER)
        self.folder = Path(name) if name else _derived_folder(info)
        if not name:
            with suppress(FileExistsError):  # whatever stands there is checked below
                self.folder.mkdir(mode=0o700)
        descriptor = _open_folder(self.folder)
        try:
            if not name and info.local_rank == 0:
                self._lock_folder()
            self._meet(descriptor)
        except (EOFError, ConnectionError, TimeoutError) as error:
            self.close()
            missing = [str(n) for n in range(info.local_size) if n not in self.ranks]
            raise PeersMissing(
                f"local ranks {', '.join(missing)} of {info.local_size} on {socket.gethostname()} "
                "did not start in time, or have ended"
            ) from error
        finally:
            os.close(descriptor)

    def send(self, exchange: int, numbers: Sequence[int]) -> None:
        """Send `numbers` to all others. Raises PeersMissing."""
        message = array("q", [exchange, *numbers]).tobytes()
        for rank, connection in self._connections.items():
            try:
                connection.send_bytes(message)
            except OSError as error:
                raise self._lost(rank) from error

    def receive(
        self, exchange: int, limit_s: float | None, ranks: Collection[int] | None = None
    ) -> list[list[int]]:
        """The numbers of each of `ranks`, by default of all others.

        Raises PeersMissing if one has ended, and TimeoutError after `limit_s`; None: no limit.
        """
        ranks = self._connections if ranks is None else ranks
        for rank in ranks:
            connection = self._connections[rank]
            while (rank, exchange) not in self._received:
                try:
                    message = connection.recv_bytes() if connection.poll(limit_s) else b""
                except (EOFError, OSError) as error:
                    raise self._lost(rank) from error
                if not message:
                    raise TimeoutError(
                        f"rank {self._info.rank} timed out waiting {limit_s:g} s for rank {rank}"
                    )
                number, *numbers = array("q", message)
                self._received[rank, number] = numbers
        return [self._received.pop((rank, exchange)) for rank in ranks]

    def check(self) -> None:
        """Raise PeersMissing if the process of another rank has ended."""
        for rank, connection in self._connections.items():
            poll = select.poll()
            poll.register(connection, 0)  # the end of the other side is told in any case
            if poll.poll(0):
                raise self._lost(rank)

    def close(self) -> None:
        """Close this end of the connections."""
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._owns_folder = False
        self._close_files()

    def _close_files(self) -> None:
        for file in self._files:
            file.close()

    def _lock_folder(self) -> None:
        """Hold the lock of the folder, which whoever removes abandoned ones looks for."""
        owner = (self.folder / OWNER).open("w")
        self._files.append(owner)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner.close()
            raise EngineError(
                "another run on this machine has the same MASTER_ADDR and MASTER_PORT; set "
                "MASTER_PORT to another number for one of them"
            ) from error
        self._owns_folder = True

    def _meet(self, folder: int) -> None:
        """Call all ranks before this one, and answer all after it."""
        info = self._info
        path = self.folder / str(info.local_rank)
        with socket.socket(socket.AF_UNIX) as server:
            path.unlink(missing_ok=True)  # of a run that was killed
            server.bind(_address(folder, path))
            server.listen(info.local_size)
            for local_rank in range(info.local_rank):
                self._greet(self._call(_address(folder, self.folder / str(local_rank))))
            while len(self.ranks) < info.local_size:
                server.settimeout(self._remaining_s())
                caller, _ = server.accept()
                self._greet(Connection(caller.detach()))
        path.unlink()

    def _call(self, address: str) -> Connection:
        while True:
            try:
                return Client(address, "AF_UNIX")
            except (FileNotFoundError, ConnectionRefusedError):
                if self._remaining_s() <= _PAUSE_S:
                    raise TimeoutError from None
                time.sleep(_PAUSE_S)

    def _greet(self, connection: Connection) -> None:
        """Exchange ranks with the one at the other end."""
        self._files.append(connection)
        greeting = [self._info.local_rank, self._info.rank, self.secret]
        connection.send_bytes(json.dumps(greeting).encode())
        if not connection.poll(self._remaining_s()):
            raise TimeoutError
        local_rank, rank, secret = json.loads(connection.recv_bytes())
        if local_rank == 0:
            self.secret = secret
        self.ranks[local_rank] = rank
        self._connections[rank] = connection

    def _remaining_s(self) -> float:
        return max(self._deadline - time.monotonic(), 0.001)

    def _lost(self, rank: int) -> PeersMissing:
        return PeersMissing(
            f"rank {self._info.rank} on {socket.gethostname()} lost rank {rank}, whose process on "
            "this machine has ended"
        )


def _derived_folder(info: RankInfo) -> Path:
    """The folder of ranks that srun or torchrun has started: the same for all on this machine.

    Raises EngineError if nothing tells these ranks from those of another run.
    """
    variables = environment.variables()
    shared = [variables.get(name, "") for name in (SECRET, "TORCHELASTIC_RESTART_COUNT")]
    text = "/".join([*environment.address(), *shared, str(info.node), socket.gethostname()])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"gearshift-ranks-{digest}")


def _open_folder(folder: Path) -> int:
    """A descriptor of `folder`. Raises EngineError if it is no folder, or others may enter it."""
    with suppress(OSError):  # a link, a file, or a folder of another user
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        state = os.fstat(descriptor)
        if state.st_uid == os.geteuid() and not state.st_mode & 0o077:
            return descriptor
        os.close(descriptor)
    raise EngineError(
        f"{folder}, where the ranks of this machine would meet, is not a folder that only you can "
        "enter; remove it, or set TMPDIR to a folder of yours"
    )


def _address(folder: int, path: Path) -> str:
    """An address of the socket `path`: it may have a hundred bytes, so through a descriptor."""
    descriptors = Path("/proc/self/fd")
    return str(descriptors / str(folder) / path.name if descriptors.exists() else path)
