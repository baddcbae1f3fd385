"""Connections between the ranks of one machine, which no other user can reach."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from array import array
from collections.abc import Collection, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path

from gearshift.engines import environment
from gearshift.engines.base import EngineError, PeersMissing, World
from gearshift.engines.environment import FOLDER, OWNER, SECRET, RankInfo

_PAUSE_S = 0.02


class LocalRanks:
    """A connection to each other rank of this machine, which ends with the process of that rank.

    Messages have the number of their exchange: what an interrupted exchange has left is not taken
    for a message of a later one.
    """

    def __init__(self, info: RankInfo | World, limit_s: float):
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
        self._received: dict[int, dict[int, list[int]]] = {}
        self._lock: int | None = None
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
        except BaseException:
            self.close()
            raise
        finally:
            os.close(descriptor)

    @property
    def first(self) -> int:
        """The first rank of this machine."""
        return self.ranks[0]

    def send(
        self, exchange: int, numbers: Sequence[int], ranks: Collection[int] | None = None
    ) -> None:
        """Send `numbers` to `ranks`, by default to all others. Raises PeersMissing."""
        message = array("q", [exchange, *numbers]).tobytes()
        for rank in self._connections if ranks is None else ranks:
            try:
                self._connections[rank].send_bytes(message)
            except OSError as error:
                raise self._lost(rank) from error

    def receive(
        self, exchange: int, limit_s: float | None, ranks: Collection[int] | None = None
    ) -> list[list[int]]:
        """The numbers of each of `ranks`, by default of all others.

        Raises PeersMissing if one has ended, and TimeoutError after `limit_s`; None: no limit.
        """
        if ranks is None:
            ranks = self._connections
        for rank in ranks:
            while exchange not in self._received[rank]:
                if not self._receive_next(rank, limit_s):
                    raise TimeoutError(
                        f"rank {self._info.rank} timed out waiting {limit_s:g} s for rank {rank}"
                    )
        return [self._received[rank].pop(exchange) for rank in ranks]

    def check(self) -> None:
        """Raise PeersMissing if the process of another rank has ended."""
        for rank in self._connections:
            while self._receive_next(rank, 0):
                pass

    def close(self) -> None:
        """Close this end of the connections."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._close_files()

    def _close_files(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _lock_folder(self) -> None:
        """Hold the lock of the folder, which whoever removes abandoned ones looks for."""
        self._lock = os.open(self.folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise EngineError(
                "another run on this machine has the same MASTER_ADDR and MASTER_PORT; set "
                "MASTER_PORT to another number for one of them"
            ) from error

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
                try:
                    caller, _ = server.accept()
                except TimeoutError:
                    raise self._missing() from None
                caller.setblocking(True)
                self._greet(Connection(caller.detach()))
        path.unlink()

    def _call(self, address: str) -> Connection:
        while True:
            try:
                return Client(address, "AF_UNIX")
            except (FileNotFoundError, ConnectionRefusedError):
                if self._remaining_s() <= _PAUSE_S:
                    raise self._missing() from None
                time.sleep(_PAUSE_S)

    def _greet(self, connection: Connection) -> None:
        """Exchange ranks with the one at the other end."""
        info = self._info
        try:
            greeting = [info.local_rank, info.rank, self.secret]
            connection.send_bytes(json.dumps(greeting).encode())
            if not connection.poll(self._remaining_s()):
                raise self._missing()
            local_rank, rank, secret = json.loads(connection.recv_bytes())
        except (EOFError, OSError):  # it has ended since, and is missing
            connection.close()
            return
        if local_rank == 0:
            self.secret = secret
        self.ranks[local_rank] = rank
        self._connections[rank] = connection
        self._received[rank] = {}

    def _remaining_s(self) -> float:
        return max(self._deadline - time.monotonic(), 0.001)

    def _missing(self) -> PeersMissing:
        missing = [n for n in range(self._info.local_size) if n not in self.ranks]
        return PeersMissing(
            f"local ranks {', '.join(map(str, missing))} of {self._info.local_size} on "
            f"{socket.gethostname()} did not start in time"
        )

    def _receive_next(self, rank: int, limit_s: float | None) -> bool:
        """Receive one message; False: none has arrived within `limit_s`."""
        connection = self._connections[rank]
        try:
            if not connection.poll(limit_s):
                return False
            message = connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._lost(rank) from error
        exchange, *numbers = array("q", message)
        self._received[rank][exchange] = numbers
        return True

    def _lost(self, rank: int) -> PeersMissing:
        return PeersMissing(
            f"rank {self._info.rank} on {socket.gethostname()} lost rank {rank}, whose process on "
            "this machine has ended"
        )


def _derived_folder(info: RankInfo | World) -> Path:
    """The folder of ranks that srun or torchrun has started: the same for all on this machine.

    Raises EngineError if nothing tells these ranks from those of another run.
    """
    variables = environment.variables()
    names = ["MASTER_ADDR", "MASTER_PORT"]
    if not all(map(variables.get, names)):
        raise EngineError(
            f"{info.size} processes cannot find each other: MASTER_ADDR and MASTER_PORT are not "
            "set; torchrun sets both"
        )
    names += [SECRET, "TORCHELASTIC_RESTART_COUNT"]
    shared = [variables.get(name, "") for name in names]
    text = "/".join([*shared, str(info.node), socket.gethostname()])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"gearshift-ranks-{digest}")


def _open_folder(folder: Path) -> int:
    """A descriptor of `folder`. Raises EngineError if it is no folder, or others may enter it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        state = os.fstat(descriptor)
        if state.st_uid == os.geteuid() and not state.st_mode & 0o077:
            return descriptor
        os.close(descriptor)
    except OSError:  # a link, a file, or a folder of another user
        pass
    raise EngineError(
        f"{folder}, where the ranks of this machine would meet, is not a folder that only you can "
        "enter; remove it, or set TMPDIR to a folder of yours"
    )


def _address(folder: int, path: Path) -> str:
    """An address of the socket `path`: it may have a hundred bytes, so through a descriptor."""
    descriptors = Path("/proc/self/fd")
    return str(descriptors / str(folder) / path.name if descriptors.exists() else path)
