"""Environment variables of engines; the only file here that touches os.environ."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from gearshift.engines.base import EngineError

SECRET = "GEARSHIFT_RENDEZVOUS"
"""The variable with a secret that only the ranks of one start share."""
FOLDER = "GEARSHIFT_SOCKETS"
"""The variable with a folder for the sockets of the ranks, made by the process that starts them."""

OWNER = ".gearshift-owner"
"""The file in a temporary folder whose lock its process holds until it ends, however it ends."""


def variables() -> MutableMapping[str, str]:
    """The environment variables of this process; writing one changes it for libraries, too."""
    return os.environ


def address() -> tuple[str, str]:
    """The host of rank 0, and its port. Raises EngineError if they are not set."""
    host = variables().get("MASTER_ADDR")
    port = variables().get("MASTER_PORT", "")
    if not host or not port.isdigit():
        raise EngineError(
            "processes cannot find each other: MASTER_ADDR and MASTER_PORT, an integer, are not "
            "set; torchrun sets both"
        )
    return host, port


@dataclass(frozen=True)
class RankInfo:
    """The position of a process among all processes, with the meaning of torchrun's variables."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0

    def variables(self) -> dict[str, str]:
        """The environment variables from which `read_ranks` reads it."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "GROUP_RANK": str(self.node),
        }


def read_ranks(environment: Mapping[str, str]) -> RankInfo:
    """The position in torchrun's variables; a single process without them.

    Raises EngineError if they are incomplete or contradict each other.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return RankInfo()
    rank = _integer(environment, "RANK")
    size = _integer(environment, "WORLD_SIZE")
    local_rank = _integer(environment, "LOCAL_RANK", rank)
    local_size = _integer(environment, "LOCAL_WORLD_SIZE", size)
    node = _integer(environment, "GROUP_RANK", 0)
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise EngineError(
            f"invalid environment: RANK {rank} of WORLD_SIZE {size}, LOCAL_RANK {local_rank} of "
            f"LOCAL_WORLD_SIZE {local_size}; a rank is less than its size"
        )
    return RankInfo(rank, size, local_rank, local_size, node)


def _integer(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, default)
    if text is None:
        raise EngineError(f"{name} is not set; RANK and WORLD_SIZE belong together (torchrun)")
    try:
        return int(text)
    except ValueError:
        raise EngineError(f"{name}={text} in the environment is not an integer") from None
