"""The network interface of the process group: loopback, or one that other machines reach."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from gearshift.engines import environment
from gearshift.engines.base import EngineError

GLOO = "GLOO_SOCKET_IFNAME"


def interfaces() -> dict[str, list[str]]:
    """The interfaces of this machine with their addresses, IPv4 first."""
    by_name: dict[str, list[str]] = {}
    for name, addresses in psutil.net_if_addrs().items():
        by_name[name] = []
        for address in addresses:  # psutil sorts them by family
            if address.family in (socket.AF_INET, socket.AF_INET6):
                by_name[name].append(address.address.partition("%")[0])
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
    host = socket.gethostname()
    if variables.get(GLOO):
        return
    try:
        announced = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        if not _is_local(str(announced[0][4][0])):  # gloo takes the first
            return
    except OSError:
        pass
    available = interfaces()
    public = [name for name, addresses in available.items() if not all(map(_is_local, addresses))]
    try:  # the local address of packets to `address`; sends none
        targets = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, target = targets[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            source = probe.getsockname()[0]
            public = [name for name in public if source in available[name]] or public
    except OSError:
        pass
    if len(public) != 1:
        raise EngineError(
            f"the host name {host} resolves to 127.0.0.1, which other nodes cannot reach; set "
            f"{GLOO} to one of {', '.join(available)}"
        )
    variables[GLOO] = public[0]


def _is_local(address: str) -> bool:
    number = ipaddress.ip_address(address)
    return number.is_loopback or number.is_link_local
