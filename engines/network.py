"""Network interfaces of the process group: checking those that are set, and selecting one."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

import psutil

from engines import environment
from engines.base import EngineError

GLOO = "GLOO_SOCKET_IFNAME"
NCCL = "NCCL_SOCKET_IFNAME"


def interfaces() -> dict[str, list[str]]:
    """The interfaces of this machine with their addresses, IPv4 first."""
    by_name = {}
    for name, addresses in psutil.net_if_addrs().items():
        inet = [a for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)]
        inet.sort(key=lambda address: address.family != socket.AF_INET)
        by_name[name] = [address.address.partition("%")[0] for address in inet]
    return by_name


def check_interfaces(variables: Mapping[str, str], available: Mapping[str, list[str]]) -> None:
    """Raise EngineError if a variable names an interface that is not `available`.

    NCCL accepts any of the given prefixes; `=` marks full names, `^` excluded ones.
    """
    for variable, text in ((name, variables.get(name, "")) for name in (GLOO, NCCL)):
        names = [name.partition(":")[0] for name in text.removeprefix("=").split(",") if name]
        is_prefix = variable == NCCL and not text.startswith("=")
        missing = [n for n in names if not any(a.startswith(n) if is_prefix else a == n for a in available)]
        is_enough = variable == NCCL and len(missing) < len(names)
        if missing and not is_enough and not text.startswith("^"):
            raise EngineError(
                f"{variable}={text}: {socket.gethostname()} has no interface "
                f"{', '.join(missing)}; available: {_listed(available)}"
            )


def use_loopback() -> None:
    """Let gloo listen where no other machine can connect. For ranks on one machine."""
    loopback = (name for name, addresses in interfaces().items() if "127.0.0.1" in addresses)
    if name := next(loopback, None):
        environment.variables().setdefault(GLOO, name)


def select_interface(address: str) -> None:
    """Set the interface of gloo if it would announce the address 127.* to other nodes.

    gloo takes the address of this machine's name, which on some systems is the loopback address.
    `address` is that of rank 0, to which the interface leads. Raises EngineError if several
    interfaces could. For ranks on several machines.
    """
    variables = environment.variables()
    if variables.get(GLOO) or _hostname_is_public():
        return
    available = interfaces()
    public = [name for name, addresses in available.items() if not all(map(_is_local, addresses))]
    source = _source(address)
    leading = [name for name in public if source in available[name]] or public
    if len(leading) != 1:
        raise EngineError(
            f"the host name {socket.gethostname()} resolves to 127.0.0.1, which other nodes cannot "
            f"reach; set {GLOO} to one of {_listed(available)}"
        )
    variables[GLOO] = leading[0]


def _hostname_is_public() -> bool:
    try:
        addresses = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return not _is_local(str(addresses[0][4][0]))  # gloo takes the first


def _source(address: str) -> str | None:
    """The local address of packets to `address`; sends none."""
    try:
        addresses = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, target = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _is_local(address: str) -> bool:
    number = ipaddress.ip_address(address.partition("%")[0])
    return number.is_loopback or number.is_link_local


def _listed(available: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{name} ({all_[0]})" if all_ else name for name, all_ in available.items())
