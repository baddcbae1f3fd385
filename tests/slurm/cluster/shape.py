"""The layout of a test cluster, and the paths of its files."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

CAPABLE = (
    "hostname probe && ip link add name probe type bridge"
    " && ip link add name probe0 type veth peer name probe1"
)
"""The parts of a node in namespaces of its own; True if this machine allows it."""

NAMESPACES = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Shape:
    """Nodes, their declared resources, and the few settings of Slurm that differ between tests.

    `network` is `netns` (a node is a process tree in namespaces of its own, joined by a bridge)
    or `loopback` (all daemons on 127.0.0.1, each with a port of its own: `ports`, the
    controller's first). `extra` are lines for slurm.conf, appended last: a repeated key
    overrides.
    """

    network: str
    nodes: int = 2
    cpus: int = 8  # declared: more than the machine has is allowed
    gpus: int = 2  # bookkeeping only: without devices
    grace_seconds: int = 10
    extra: tuple[str, ...] = ()
    ports: tuple[int, ...] = field(default=())

    def save(self, folder: Path) -> None:
        """Write it into the cluster's folder, for the process that stops the cluster."""
        (folder / "shape.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def shaped(network: str = "auto", extra: tuple[str, ...] = ()) -> Shape:
    """A layout with a network that this machine supports, and with free ports."""
    if network == "auto":
        network = "netns" if namespaces_allowed() else "loopback"
    ports = (6817, 6818, 6818) if network == "netns" else free_ports(3)
    return Shape(network, extra=extra, ports=ports)


def load(folder: Path) -> Shape:
    """The layout in a cluster's folder."""
    known = json.loads((folder / "shape.json").read_text(encoding="utf-8"))
    return Shape(**known | {"extra": tuple(known["extra"]), "ports": tuple(known["ports"])})


def namespaces_allowed() -> bool:
    """Whether nodes may have a network, a name and a process tree of their own here."""
    try:
        tried = subprocess.run(
            ["unshare", *NAMESPACES, "sh", "-c", CAPABLE], capture_output=True, timeout=20
        )
    except OSError:
        return False
    return tried.returncode == 0


def free_ports(count: int) -> tuple[int, ...]:
    """Different free TCP ports; all are held open until the last is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return tuple(sock.getsockname()[1] for sock in sockets)
    finally:
        for sock in sockets:
            sock.close()
