"""The network of the process group: its interface, and who may connect to it."""

from __future__ import annotations

import ctypes
import hmac
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist

from gearshift.engines import environment
from gearshift.engines.base import EngineError

GLOO = "GLOO_SOCKET_IFNAME"
_SO_ATTACH_FILTER = 26  # Linux, asm-generic/socket.h
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes of the packet
_CHECK_S = 5.0


def interfaces() -> dict[str, list[str]]:
    """The interfaces of this machine with their addresses, IPv4 first."""
    by_name: dict[str, list[str]] = {}
    for name, addresses in psutil.net_if_addrs().items():
        by_name[name] = [
            address.address.partition("%")[0]
            for address in addresses  # psutil sorts them by family
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
    return by_name


def use_loopback() -> None:
    """Let gloo listen where no other machine can connect. For ranks on one machine."""
    for name, addresses in interfaces().items():
        if "127.0.0.1" in addresses:
            environment.variables().setdefault(GLOO, name)
            return


def select_interface(address: str) -> None:
    """Set the interface of gloo if it would announce the address 127.* to other nodes.

    gloo takes the address of this machine's name, which on some systems is the loopback address.
    `address` is that of rank 0, to which the interface leads. Raises EngineError if several
    interfaces could. For ranks on several machines.
    """
    variables = environment.variables()
    if variables.get(GLOO):
        return
    host = socket.gethostname()
    with suppress(OSError):
        announced = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        if not _is_local(str(announced[0][4][0])):  # gloo takes the first
            return
    available = interfaces()
    public = [name for name, addresses in available.items() if not all(map(_is_local, addresses))]
    with suppress(OSError):  # the local address of packets to `address`; sends none
        targets = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, target = targets[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            source = probe.getsockname()[0]
        public = [name for name in public if source in available[name]] or public
    if len(public) != 1:
        raise EngineError(
            f"the host name {host} resolves to 127.0.0.1, which other nodes cannot reach; set "
            f"{GLOO} to one of {', '.join(available)}"
        )
    variables[GLOO] = public[0]


def are_connected(secret: bytes) -> bool:
    """Whether ranks are at both ends of each connection of the process groups. Collective.

    gloo listens at a TCP port, also on the loopback interface, and takes for a rank whoever
    connects first and sends a small number. So all pairs of ranks exchange what only those with the
    `secret` can compute.
    """
    results = []
    for group in list(dist.distributed_c10d._world.pg_map):
        here = dist.get_rank(group)
        others = range(dist.get_world_size(group))
        sent = torch.tensor([_proof(secret, here, other) for other in others])
        expected = torch.tensor([_proof(secret, other, here) for other in others])
        received = torch.zeros_like(sent)
        options = dist.AllToAllOptions()
        options.timeout = timedelta(seconds=_CHECK_S)
        with suppress(RuntimeError):
            group.alltoall_base(received, sent, [], [], options).wait()
        results.append(torch.equal(received, expected))
    return all(results)


def _proof(secret: bytes, source: int, target: int) -> int:
    digest = hmac.digest(secret, f"{source} to {target}".encode(), "sha256")
    return int.from_bytes(digest[:8], "little", signed=True)


def listening() -> set[int]:
    """The descriptors of the TCP sockets of this process that listen."""
    connections = psutil.Process().net_connections("tcp")
    return {c.fd for c in connections if c.status == psutil.CONN_LISTEN}


def close_ports(descriptors: Iterable[int]) -> None:
    """Let the kernel drop what arrives at sockets that listen; their connections stay. Linux only.

    gloo listens as long as its group exists. Connections of strangers could use up the files of
    this process.
    """
    if sys.platform != "linux":
        return
    instructions = ctypes.create_string_buffer(_DROP_ALL)
    program = struct.pack("HP", 1, ctypes.addressof(instructions))
    for descriptor in descriptors:
        # Some sandboxes know no filters; the connections are checked all the same.
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _is_local(address: str) -> bool:
    number = ipaddress.ip_address(address)
    return number.is_loopback or number.is_link_local
