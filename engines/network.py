"""The network interfaces that ranks talk through: those that are named, and one that has to be."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping

import psutil

from engines.base import EngineError

GLOO = "GLOO_SOCKET_IFNAME"
NCCL = "NCCL_SOCKET_IFNAME"


def interfaces() -> dict[str, list[str]]:
    """The interfaces of this machine with their addresses, those of IPv4 first."""
    found = {}
    for name, told in psutil.net_if_addrs().items():
        numbers = [one for one in told if one.family in (socket.AF_INET, socket.AF_INET6)]
        numbers.sort(key=lambda one: one.family != socket.AF_INET)
        found[name] = [one.address.partition("%")[0] for one in numbers]
    return found


def check_interfaces(environment: Mapping[str, str], there: Mapping[str, list[str]]) -> None:
    """Raises EngineError where a variable names an interface that is not `there`."""
    for variable, missing in (
        (GLOO, _missing_of_gloo(environment.get(GLOO, ""), there)),
        (NCCL, _missing_of_nccl(environment.get(NCCL, ""), there)),
    ):
        if missing:
            raise EngineError(
                f"{variable}={environment[variable]} names {missing}, and "
                f"{socket.gethostname()} has no such interface; it has {_listed(there)}"
            )


def name_interface(address: str) -> None:
    """Tell gloo which interface to use, where it would tell other nodes the address 127.*.

    It takes what this machine's name stands for, which on some systems is the machine itself.
    `address` is that of rank 0, to which the interface leads. Raises EngineError where several
    might. To be called where ranks are on several machines.
    """
    if os.environ.get(GLOO) or _own_address_is_public():
        return
    there = interfaces()
    public = [name for name, all_ in there.items() if any(not _is_local(one) for one in all_)]
    towards = _source(address)
    leading = [name for name in public if towards in there[name]] or public
    if len(leading) != 1:
        raise EngineError(
            f"{socket.gethostname()} does not know its own address, and other nodes cannot reach "
            f"it by 127.0.0.1; write  {GLOO}=NAME  into the environment, of {_listed(there)}"
        )
    os.environ[GLOO] = leading[0]


def _own_address_is_public() -> bool:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return not _is_local(str(found[0][4][0]))  # gloo takes the first


def _source(address: str) -> str | None:
    """The address of ours that packets to `address` would carry; sends none."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _is_local(address: str) -> bool:
    number = ipaddress.ip_address(address.partition("%")[0])
    return number.is_loopback or number.is_link_local


def _missing_of_gloo(text: str, there: Mapping[str, list[str]]) -> str:
    return ", ".join(name for name in text.split(",") if name and name not in there)


def _missing_of_nccl(text: str, there: Mapping[str, list[str]]) -> str:
    """NCCL takes any of the beginnings that it is given; after `=` whole names, after `^` none."""
    if not text or text.startswith("^"):
        return ""
    names = text.removeprefix("=").split(",")
    if text.startswith("="):
        fits = any(name.partition(":")[0] in there for name in names)
    else:
        fits = any(one.startswith(name.partition(":")[0]) for name in names for one in there)
    return "" if fits else ", ".join(names)


def _listed(there: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{name} ({all_[0]})" if all_ else name for name, all_ in there.items())
