"""Only ranks are connected by a process group, and its ports take no further connection."""

import socket
import struct
import sys
from contextlib import suppress
from datetime import timedelta
from unittest.mock import patch

import psutil
import pytest
import torch
import torch.distributed as dist

from gearshift.engines import network
from gearshift.engines.world import open_world

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs filters of sockets")


def listening():
    connections = psutil.Process().net_connections("tcp")
    return [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]


def connect_as_a_stranger(world):
    """How often somebody could connect to a port of this rank, of so many tries."""
    tries = connected = 0
    for address in listening():
        tries += 1
        with socket.socket() as stranger, suppress(TimeoutError):
            stranger.settimeout(0.2)
            stranger.connect(address)
            connected += 1
    return world.sum(torch.tensor([tries, connected])).tolist()


def test_nobody_can_connect_once_all_ranks_are(worlds):
    worlds[2].close()  # whose tests have made groups of their own
    tries, connected = worlds[2].run(connect_as_a_stranger)[0]
    assert tries > 0 and connected == 0
    worlds[2].close()


class WatchedStore(dist.Store):
    """A store that a stranger watches: he connects to each port before another rank knows of it."""

    def __init__(self, store):
        super().__init__()
        self._store = store
        self._strangers = {address: [] for address in listening()}  # those take nobody

    def set(self, key, value):
        attempt = key.partition("/")[2].partition("/")[0]
        for address in listening() if key.startswith("group/") and attempt in "12" else ():
            if address not in self._strangers:
                self._strangers[address] = [connect(address, number) for number in range(4)]
        self._store.set(key, value)

    def wait(self, keys, timeout=None):
        self._store.wait(keys, timeout or timedelta(seconds=60))

    def has_extended_api(self):
        return False

    def get(self, key):
        return self._store.get(key)

    def multi_get(self, keys):
        return self._store.multi_get(keys)

    def check(self, keys):
        return self._store.check(keys)

    def add(self, key, amount):
        return self._store.add(key, amount)

    def set_timeout(self, timeout):
        self._store.set_timeout(timeout)


def connect(address, number):
    """A connection of a stranger, with one of the small numbers by which gloo knows its ranks."""
    stranger = socket.create_connection(address)
    stranger.send(struct.pack("q", number))
    return stranger


def open_again(world):
    """The sum in a new world, whose ports somebody else reaches first, and the tries it took."""
    world.close()
    file_store = dist.FileStore
    stores = []

    def watched(*arguments):
        stores.append(WatchedStore(file_store(*arguments)))
        return stores[-1]

    with patch.object(dist, "FileStore", watched), patch.object(network, "_CHECK_S", 1.0):
        again = open_world("cpu", 60.0, always_group=True)
    total = again.sum(torch.tensor(again.rank + 1)).item()
    (store,) = stores
    ports = sum(bool(connections) for connections in store._strangers.values())
    return total, ports, store.check(["group/3/checked"])


@pytest.mark.slow
def test_a_stranger_who_connects_first_is_no_rank(worlds):
    for total, ports, has_third_group in worlds[2].run(open_again):
        assert total == 3 and ports == 2 and has_third_group
    worlds[2].close()
