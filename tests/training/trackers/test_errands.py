from __future__ import annotations

import threading

from training.trackers.tensorboard import MOST, WriteQueue


def nothing() -> None:
    """An errand of no use."""


def test_errands_are_done_in_order_and_the_last_one_last():
    done: list[int] = []
    errands = WriteQueue("test", nothing)
    for number in range(100):
        errands.add(lambda number=number: done.append(number))
    assert errands.finish(lambda: done.append(-1), within_s=60)
    assert done == [*range(100), -1]


def test_after_a_fault_nothing_more_is_done_and_nothing_is_raised():
    done: list[int] = []
    errands = WriteQueue("test", nothing)

    def fail():
        raise OSError("no space left")

    errands.add(fail)
    errands.add(lambda: done.append(1))
    assert errands.finish(lambda: done.append(2), within_s=60)
    errands.add(lambda: done.append(3))
    assert errands.fault == "OSError: no space left"
    assert not done


def test_a_disk_that_hangs_holds_up_nobody_and_no_more_than_so_much_is_kept():
    hangs = threading.Event()
    begun = threading.Event()
    errands = WriteQueue("test", nothing)

    def hang():
        begun.set()
        hangs.wait()

    errands.add(hang)
    begun.wait()
    for _ in range(MOST + 7):
        errands.add(nothing)
    assert errands.dropped == 7
    assert not errands.finish(nothing, within_s=0)
    hangs.set()


def test_what_is_idle_is_flushed():
    flushed = threading.Event()
    errands = WriteQueue("test", flushed.set)
    errands.add(nothing)
    assert flushed.wait(60)
    errands.finish(nothing, 60)
