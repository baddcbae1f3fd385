"""Collectives, waits and process groups of a world."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch.distributed import TCPStore

from gearshift.engines.base import EngineError, PeersMissing
from gearshift.engines.rendezvous import open_store
from gearshift.engines.world import open_world
from gearshift.launcher.run.run_error import of_error
from gearshift.training.agreement import attempt
from tests.engines.pool import Pool
from tests.engines.test_environment import TORCHRUN
from tests.waiting import until


def test_processes_without_an_address_are_an_error(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(EngineError, match="MASTER_ADDR and MASTER_PORT"):
        open_world("cpu", 5.0, always_group=False)


def test_a_world_of_one_agrees_with_itself_without_a_group():
    world = open_world("cpu", 5.0, always_group=False)
    value = torch.tensor([1.0, 2.0])
    assert world.sum(value).tolist() == world.maximum(value).tolist() == [1.0, 2.0]
    assert world.agree(0b101) == 0b101
    assert world.broadcast(b"alone") == b"alone"
    world.wait_for_all()
    assert not torch.distributed.is_initialized()
    world.close()


def exchange(world):
    value = torch.tensor([world.rank + 1.0, 10.0])
    total, most = world.sum(value), world.maximum(value)
    # Each rank requests one flag of its own, and both share one.
    flags = world.agree(0b1001 if world.rank == 0 else 0b0101), world.agree(0)
    mine = f"rank {world.rank} \0é".encode()
    sent = world.broadcast(mine if world.rank == 0 else None), world.broadcast(mine, 1)
    return total.tolist(), most.tolist(), flags, (*sent, world.broadcast(b"")), value.tolist()


def test_ranks_sum_take_the_maximum_agree_on_flags_and_broadcast_bytes(worlds):
    given = "rank 0 \0é".encode(), "rank 1 \0é".encode(), b""
    for rank, (*found, own) in enumerate(worlds[2].run(exchange)):
        assert found == [[3.0, 20.0], [2.0, 10.0], (0b1101, 0), given]
        assert own == [rank + 1.0, 10.0]


def agree_twice(world):
    """The results of agreements, the latest one first."""
    first = world.agree_later(1 << world.rank, [2**40, world.rank])
    second = world.agree_later(0, [5])
    many = world.agree_later(0, range(5000))  # more than fit in one message
    third = world.agree(world.rank << 3)
    return third, second(), first(), first(), sum(many()[1])


@pytest.fixture(scope="module")
def two_machines():
    """Three ranks as on two machines, which have two and one."""
    pool = Pool(3, local_size=2)
    yield pool
    pool.close()


def test_agreements_may_be_under_way_while_others_end(worlds):
    first = 0b11, [2**41, 1]
    expected = 0b1000, (0, [10]), first, first, sum(range(5000)) * 2
    assert worlds[2].run(agree_twice) == [expected] * 2


def test_ranks_of_several_machines_agree_in_two_levels(two_machines):
    first = 0b111, [3 * 2**40, 3]
    expected = 0b11000, (0, [15]), first, first, sum(range(5000)) * 3
    assert two_machines.run(agree_twice) == [expected] * 3


def agree_after_an_interrupt(world):
    """What ranks agree on after one of them was interrupted while it waited."""
    if world.rank == 1:
        world.agree(1)
        return world.agree(2)
    other = world._local_ranks
    interrupt = patch.object(type(other), "receive", side_effect=KeyboardInterrupt)
    with interrupt, pytest.raises(KeyboardInterrupt):
        world.agree(4)
    return world.agree(8)


def test_an_interrupted_agreement_does_not_count_for_the_next(worlds):
    assert worlds[2].run(agree_after_an_interrupt) == [0b1010] * 2


def agree_alone(world):
    if world.rank == 1:
        return ""
    world._timeout_s = 0.01
    try:
        world.agree(0)
    except TimeoutError as error:
        return str(error)
    return "agreed"


def test_an_agreement_without_another_rank_ends_and_says_so(worlds):
    message, _ = worlds[2].run(agree_alone)
    assert of_error(TimeoutError(message), 0).kind == "peer lost"
    worlds[2].close()  # its time limit


def lose_rank_1(world, moment):
    """The error of rank 0 whose peer is killed at `moment`."""
    if world.rank == 1:
        if moment == "agreed":
            world.agree(1)
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        if moment == "agreed":
            world.agree(1)
        while moment == "looks":
            world.check_peers()
        if moment == "waits":
            world.wait_for_all()
        world.agree(1)
    except PeersMissing as error:
        return str(error)
    return "agreed"


@pytest.mark.parametrize("moment", ["agrees", "agreed", "waits", "looks"])
def test_a_rank_that_is_killed_is_named_at_once(moment, worlds):
    message, _ = worlds[2].run(lose_rank_1, moment, ending={1})
    assert "lost rank 1" in message


def lose_rank_1_but_not_its_worker(world, file):
    """The error of rank 0 whose peer is killed while a process that it has forked lives."""
    if world.rank == 1:
        worker = os.fork()
        if worker == 0:
            signal.pause()
        file.write_text(str(worker))
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(PeersMissing) as raised:
        world.agree(1)
    return str(raised.value)


def test_a_rank_that_is_killed_is_lost_although_its_worker_lives(worlds, tmp_path):
    file = tmp_path / "worker"
    message, _ = worlds[2].run(lose_rank_1_but_not_its_worker, file, ending={1})
    os.kill(int(file.read_text()), signal.SIGKILL)
    assert "lost rank 1" in message


def wait_for_a_slow_disk(world):
    """What each rank gets where rank 0 works longer than collectives may, at each kind of wait."""
    world.close()
    again = open_world("cpu", 5.0, always_group=True)

    def work():
        if again.rank == 0:
            end = time.monotonic() + 6.0
            until(lambda: time.monotonic() > end)
        return b"read"

    again.rank_0_first(work)
    work()
    again.wait_for_all()
    sent = again.broadcast(work())
    result, error = attempt(again, work, OSError)
    return sent, result, error


@pytest.mark.slow
def test_ranks_wait_for_a_slow_disk_without_a_limit(worlds):
    assert worlds[2].run(wait_for_a_slow_disk) == [(b"read", b"read", None)] * 2
    worlds[2].close()


def in_order(world, folder):
    """The lines that a rank sees when both have worked; rank 0 works once rank 1 is there."""
    log, is_there = folder / "log", folder / "rank 1 is there"

    def work():
        if world.rank == 0:
            until(is_there.exists)
        with log.open("a") as file:
            file.write(f"{world.rank}\n")

    if world.rank == 1:
        is_there.touch()
    world.rank_0_first(work)
    return log.read_text().split()


def test_rank_0_works_first_and_all_wait_for_all(worlds, tmp_path):
    for name in "ab":  # twice in the same world
        (tmp_path / name).mkdir()
        assert worlds[2].run(in_order, tmp_path / name) == [["0", "1"], ["0", "1"]]


def test_ranks_of_several_machines_wait_for_all(two_machines, tmp_path):
    for lines in two_machines.run(in_order, tmp_path):
        assert lines[0] == "0" and sorted(lines[1:]) == ["1", "2"]


def lose_the_rank_of_another_machine(world):
    """The kind of end of each rank whose peer, which is alone on its machine, is killed."""
    if world.rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises((PeersMissing, RuntimeError)) as raised:
        world.wait_for_all()
    world.close()  # as its process would by its end
    return of_error(raised.value, world.rank).kind


def test_a_rank_of_another_machine_that_is_killed_ends_all(two_machines):
    kinds = two_machines.run(lose_the_rank_of_another_machine, ending={2})
    assert kinds[:2] == ["peer lost"] * 2


def test_each_attempt_starts_with_an_empty_store(monkeypatch):
    """A restarted rank would take the address of a dead one for its peer's, and hang."""
    store = TCPStore("127.0.0.1", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    stores = []
    for count in ("0", "0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        stores.append(open_store(rank=0, timeout=timedelta(seconds=5)))
    first, peer, restarted = stores
    first.set("address", "of rank 0")
    assert peer.get("address") == b"of rank 0"
    assert not restarted.check(["address"])


@pytest.mark.slow
def test_workers_that_torchrun_restarts_find_each_other(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, torch\n"
        "from gearshift.engines.world import open_world\n"
        "world = open_world('cpu', 60.0, always_group=False)\n"
        "total = world.sum(torch.ones(1)).item()\n"
        "attempt = int(os.environ['TORCHELASTIC_RESTART_COUNT'])\n"
        "if attempt < 3 and world.rank == attempt % 2:\n"
        "    os._exit(17)\n"
        "world.sum(torch.ones(1))\n"
        "print(f'attempt {attempt}: {total}')\n"
        "world.close()\n"
    )
    torchrun = "-m torch.distributed.run --nproc-per-node 2 --max-restarts 3 --monitor-interval 0.2"
    rendezvous = "--rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0"
    done = subprocess.run(
        [sys.executable, *torchrun.split(), *rendezvous.split(), str(worker)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("attempt 3: 2.0") == 2
