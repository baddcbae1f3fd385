"""Ranks meet, or are told who did not come and in what they differ."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from engines.base import EngineError, PeersMissing
from engines.rendezvous import NAME, PORTS, check_ranks, open_store

HOST = socket.gethostname()
SHORT = timedelta(seconds=20)


def met(guests: list[tuple[dict[str, str], str]], size: int | None = None) -> list[BaseException]:
    """What each rank, with its facts and its device, ends with; each in a thread of its own."""
    size = size or len(guests)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=SHORT, wait_for_workers=False)

    def come(rank: int) -> BaseException | None:
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=SHORT)
        facts, device = guests[rank]
        try:
            # Rank 0 waits for those that never come.
            check_ranks(store, rank, size, facts, device, 1.0 if size > len(guests) else 20.0)
        except (EngineError, PeersMissing) as fault:
            return fault
        return None

    with ThreadPoolExecutor(len(guests)) as pool:
        return list(pool.map(come, range(len(guests))))


def test_ranks_that_are_alike_begin():
    assert met([({"torch": "2.13"}, "GPU-a"), ({"torch": "2.13"}, "GPU-b")]) == [None, None]


def test_every_rank_is_told_which_did_not_come():
    for fault in met([({}, "")] * 2, size=5):
        assert isinstance(fault, PeersMissing)
        assert str(fault) == (
            f"ranks 2 to 4 of 5 did not come within 1 s; came: {HOST} (ranks 0, 1)"
        )


def test_ranks_of_other_facts_are_named_with_them():
    told = {"torch": "2.13", "optim.lr": "0.001"}
    faults = met([(told, ""), (told | {"torch": "2.6"}, ""), (told | {"torch": "2.6"}, "")])
    for fault in faults:
        assert isinstance(fault, EngineError)
        assert f"{HOST} (ranks 1, 2): torch 2.6 in place of 2.13, which rank 0" in str(fault)
        assert "optim.lr" not in str(fault)


def test_ranks_that_share_a_gpu_are_named():
    for fault in met([({}, "GPU-a"), ({}, "GPU-b"), ({}, "GPU-a")]):
        assert isinstance(fault, EngineError)
        assert f"ranks 0, 2 on {HOST} were given one GPU, GPU-a" in str(fault)


def free_ports() -> int:
    """The first of some ports in a row that are free now."""
    for first in range(23000, 32000, 3 * PORTS):
        try:
            for port in range(first, first + PORTS):
                with socket.socket() as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        return first
    raise AssertionError("no ports in a row are free")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    first = free_ports()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(first))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return first


def test_two_jobs_with_one_port_on_a_node_meet_apart(port, monkeypatch):
    stores = {}
    for job in ("7.0.0", "12007.0.0"):
        monkeypatch.setenv(NAME, job)
        stores[job] = open_store(0, 2, SHORT)
        stores[job].set("of", job)
    for job in stores:
        monkeypatch.setenv(NAME, job)
        assert open_store(1, 2, SHORT).get("of").decode() == job


def test_a_port_of_another_program_is_passed_over(port, monkeypatch):
    monkeypatch.setenv(NAME, "7.0.0")
    # One holds the first port, one the last, and neither says a word to who comes in.
    with socket.create_server(("", port)), socket.create_server(("", port + PORTS - 1)):
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(open_store, 1, 2, SHORT)
            time.sleep(1.0)  # it looks before rank 0 is there, too
            kept = open_store(0, 2, SHORT)
            kept.set("of", "7")
            assert found.result().get("of") == b"7"
        assert open_store(1, 2, SHORT).get("of") == b"7"


def test_a_rank_that_finds_only_itself_looks_on(port, monkeypatch):
    """A connection from a port to that very port comes about where nobody listens."""
    connect = socket.create_connection

    def reach_itself(address: tuple[str, int], timeout: float) -> socket.socket:
        return connect(address, timeout, source_address=address)

    monkeypatch.setenv(NAME, "7.0.0")
    monkeypatch.setattr(socket, "create_connection", reach_itself)
    asked = []
    monkeypatch.setattr(dist, "TCPStore", lambda *place, **_: asked.append(place))
    with pytest.raises(PeersMissing):
        open_store(1, 2, timedelta(seconds=1))
    assert asked == []


def test_a_rank_that_finds_no_rank_0_says_where_it_looked(port, monkeypatch):
    monkeypatch.setenv(NAME, "7.0.0")
    said = f"rank 1 on {HOST} found no rank 0 at 127.0.0.1:{port} to {port + PORTS - 1} within 0.3"
    with pytest.raises(PeersMissing, match=said):
        open_store(1, 2, timedelta(seconds=0.3))


def test_a_port_that_is_taken_is_named_where_there_is_only_one(port, monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    with socket.create_server(("", port)), pytest.raises(EngineError) as fault:
        open_store(0, 2, SHORT)
    assert f"cannot let ranks meet at 127.0.0.1:{port}: " in str(fault.value)
    assert "EADDRINUSE" in str(fault.value)
