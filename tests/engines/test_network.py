"""Interfaces that are named are there; what is not is answered with those that are."""

from __future__ import annotations

import pytest

from engines.base import EngineError
from engines.network import check_interfaces, interfaces

THERE = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "ib0": []}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"GLOO_SOCKET_IFNAME": "eth0"},
        {"GLOO_SOCKET_IFNAME": "eth0,ib0"},
        {"NCCL_SOCKET_IFNAME": "ib,en"},  # beginnings, any of which will do
        {"NCCL_SOCKET_IFNAME": "=eth0"},
        {"NCCL_SOCKET_IFNAME": "^docker"},
    ],
)
def test_interfaces_that_are_there_pass(environment: dict[str, str]) -> None:
    check_interfaces(environment, THERE)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GLOO_SOCKET_IFNAME": "eth"}, "GLOO_SOCKET_IFNAME=eth names eth"),
        ({"GLOO_SOCKET_IFNAME": "eth0,en1"}, "names en1"),
        ({"NCCL_SOCKET_IFNAME": "en"}, "NCCL_SOCKET_IFNAME=en names en"),
        ({"NCCL_SOCKET_IFNAME": "=eth"}, "names eth"),
    ],
)
def test_a_missing_interface_is_refused_with_those_there_are(
    environment: dict[str, str], said: str
) -> None:
    with pytest.raises(EngineError, match=said) as fault:
        check_interfaces(environment, THERE)
    assert "it has lo (127.0.0.1), eth0 (10.0.0.1), ib0" in str(fault.value)


def test_this_machine_has_the_one_that_leads_back() -> None:
    assert any("127.0.0.1" in addresses for addresses in interfaces().values())
