"""Ranks register and start, or get an error with missing ranks or different settings."""

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from gearshift.engines.base import EngineError, PeersMissing
from gearshift.engines.environment import SECRET
from gearshift.engines.rendezvous import SignedStore, check_ranks, open_store

LOOPBACK = "127.0.0.1"
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
            f"3 of 5 ranks did not register within 0.2 s: 2, 3, 4; the others are on {HOST}"
        )


def test_a_missing_rank_0_is_named_where_others_differ():
    for error in register([{"a": "1"}, {"a": "2"}], size=3, first=1):
        assert isinstance(error, PeersMissing)
        assert str(error).startswith("1 of 3 ranks did not register within 0.2 s: 0;")


NEWER, OLDER = {"torch": "2.13", "optim.lr": "0.001"}, {"torch": "2.6", "optim.lr": "0.001"}
DIFFERENT = f"rank 1 ({HOST}), rank 2 ({HOST}): torch 2.6 instead of 2.13 as on rank 0 ({HOST});"


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
        open_store(1, timedelta(seconds=0.3))


def test_a_port_in_use_is_named(port):
    with socket.create_server(("", port)), pytest.raises(EngineError) as error:
        open_store(0, SHORT)
    assert f"cannot open the rendezvous at 127.0.0.1:{port}: " in str(error.value)
    assert "in use" in str(error.value)


@pytest.fixture
def stores(port, monkeypatch):
    """The store of a rank that has the secret, and that of a stranger who reaches its port."""
    monkeypatch.setenv(SECRET, "a secret")
    store = open_store(0, SHORT)
    return store, dist.TCPStore(LOOPBACK, port, is_master=False, timeout=SHORT)


def test_ranks_read_what_ranks_with_their_secret_have_written(stores):
    store, _ = stores
    other = open_store(1, SHORT)
    other.set("text", "of rank 1")
    assert store.get("text") == b"of rank 1"
    assert store.multi_get(["text", "text"]) == [b"of rank 1"] * 2
    wrapped = dist.PrefixStore("wrapped", other)  # as torch does
    wrapped.set("bytes", b"\0\xff")
    assert dist.PrefixStore("wrapped", store).get("bytes") == b"\0\xff"
    assert other.add("count", 2) == store.add("count", 0) == 2
    assert store.check(["text"]) and not store.check(["other"])
    assert store.delete_key("text") and not other.check(["text"])


@pytest.mark.parametrize("attack", ["overwrites", "copies", "signs with another secret"])
def test_a_value_of_a_stranger_is_an_error(stores, attack):
    store, stranger = stores
    store.set("address", "of rank 0")
    store.set("result", "good")
    names = {name.rpartition("/")[2]: name for name in stranger.list_keys()}
    assert not any("a secret" in name for name in names)
    if attack == "overwrites":
        stranger.set(names["address"], "of a stranger")
    elif attack == "copies":
        stranger.set(names["address"], stranger.get(names["result"]))
    else:
        prefix = names["address"].rpartition("/")[0]
        of_another = SignedStore(dist.PrefixStore(prefix, stranger), b"another", SHORT)
        of_another.set("address", "of a stranger")
    assert store.get("result") == b"good"
    with pytest.raises(RuntimeError, match=SECRET):
        store.get("address")
