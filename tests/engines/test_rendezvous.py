"""Ranks register and start, or get an error with missing ranks or different settings."""

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psutil
import pytest
import torch.distributed as dist

from gearshift.engines.base import EngineError, PeersMissing
from gearshift.engines.rendezvous import LOOPBACK, TOKEN, check_ranks, open_store

HOST = socket.gethostname()
SHORT = timedelta(seconds=20)


def register(peers, size=None, first=0):
    """The error of each rank from `first`, given its facts; each rank in a thread of its own."""
    size = size or len(peers)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=SHORT, wait_for_workers=False)

    def register_rank(rank):
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=SHORT)
        try:
            # Rank 0 waits for missing ranks.
            check_ranks(store, rank, size, peers[rank - first], 0.2 if size > len(peers) else 20.0)
        except (EngineError, PeersMissing) as error:
            return error
        return None

    with ThreadPoolExecutor(len(peers)) as pool:
        return list(pool.map(register_rank, range(first, first + len(peers))))


def test_every_rank_gets_the_missing_ranks():
    for error in register([{}] * 2, size=5):
        assert isinstance(error, PeersMissing)
        assert str(error) == (
            f"ranks 2, 3, 4 of 5 did not register within 0.2 s; registered: {HOST} (ranks 0, 1)"
        )


def test_a_missing_rank_0_is_named_where_others_differ():
    for error in register([{"a": "1"}, {"a": "2"}], size=3, first=1):
        assert isinstance(error, PeersMissing)
        assert str(error).startswith("rank 0 of 3 did not register")


NEWER, OLDER = {"torch": "2.13", "optim.lr": "0.001"}, {"torch": "2.6", "optim.lr": "0.001"}
DIFFERENT = f"ranks have different settings: {HOST} (ranks 1, 2): torch 2.6 instead of 2.13 "


@pytest.mark.parametrize(
    ("peers", "text"),
    [
        ([NEWER, NEWER], None),
        ([NEWER, OLDER, OLDER], DIFFERENT),
    ],
)
def test_ranks_with_the_same_settings_start(peers, text):
    for error in register(peers):
        assert isinstance(error, EngineError) == (text is not None)
        assert text is None or (text in str(error) and "optim.lr" not in str(error))


@pytest.fixture
def port(monkeypatch):
    with socket.create_server((LOOPBACK, 0)) as probe:
        first = probe.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(first))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return first


def test_a_rank_without_rank_0_names_the_address(port):
    with pytest.raises(PeersMissing, match=f"rank 1 on {HOST} could not reach .* 127.0.0.1:{port}"):
        open_store(1, 2, timedelta(seconds=0.3))


def test_a_port_in_use_is_named(port):
    with socket.create_server(("", port)), pytest.raises(EngineError) as error:
        open_store(0, 2, SHORT)
    assert f"cannot open the rendezvous at 127.0.0.1:{port}: " in str(error.value)
    assert "Address already in use" in str(error.value)


@pytest.mark.parametrize(
    ("address", "is_local", "addresses"),
    [("node1", True, {LOOPBACK}), (LOOPBACK, False, {LOOPBACK}), ("localhost", False, {"::"})],
)
def test_ranks_of_one_machine_listen_on_loopback_only(
    port, monkeypatch, address, is_local, addresses
):
    monkeypatch.setenv("MASTER_ADDR", address)
    store = open_store(0, 2, SHORT, is_local)
    listening = [
        c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening if address.port == port} == addresses
    assert store.num_keys() == 0


def test_a_key_without_the_token_of_the_ranks_does_not_count(port, monkeypatch):
    monkeypatch.setenv(TOKEN, "a secret")
    store = open_store(0, 2, SHORT)
    stranger = dist.TCPStore(LOOPBACK, port, is_master=False, timeout=SHORT)
    for key in ("attempt-0/result", "/attempt-0/result"):
        stranger.set(key, "a stranger's text")
    assert not store.check(["result"])
    assert open_store(1, 2, SHORT).set("result", "of rank 0") is None
    assert store.get("result") == b"of rank 0"
