"""Interfaces in the environment exist; a missing one is an error with the available ones."""

import pytest

from engines.base import EngineError
from engines.network import check_interfaces

AVAILABLE = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "ib0": []}


def test_existing_interfaces_pass():
    check_interfaces({}, AVAILABLE)
    for names in ("eth0", "eth0,ib0"):
        check_interfaces({"GLOO_SOCKET_IFNAME": names}, AVAILABLE)
    for names in ("ib,en", "=eth0", "^docker"):  # prefixes, any of them
        check_interfaces({"NCCL_SOCKET_IFNAME": names}, AVAILABLE)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"GLOO_SOCKET_IFNAME": "eth"}, "GLOO_SOCKET_IFNAME=eth: .* has no interface eth;"),
        ({"GLOO_SOCKET_IFNAME": "eth0,en1"}, "no interface en1;"),
        ({"NCCL_SOCKET_IFNAME": "en"}, "NCCL_SOCKET_IFNAME=en: .* has no interface en;"),
        ({"NCCL_SOCKET_IFNAME": "=eth"}, "no interface eth;"),
    ],
)
def test_a_missing_interface_is_an_error_with_the_available_ones(environment, message):
    with pytest.raises(EngineError, match=message) as error:
        check_interfaces(environment, AVAILABLE)
    assert "available: lo (127.0.0.1), eth0 (10.0.0.1), ib0" in str(error.value)
