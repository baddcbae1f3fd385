"""Loader workers and the data watchdog."""

from __future__ import annotations

import threading

from training.data.workers import DataWatchdog, WorkerDied


def test_a_dead_worker_is_reported_with_its_likely_cause():
    assert str(WorkerDied([-9, 3])) == (
        "a data-loader worker died by signal 9, with exit code 3; signal 9 usually means out of "
        "memory: lower loader.workers or loader.prefetch"
    )


def test_the_watchdog_gives_up_once_if_no_data_arrives():
    fired = threading.Event()
    messages: list[str] = []

    def give_up(text: str) -> None:
        messages.append(text)
        fired.set()

    watch = DataWatchdog(0.4, give_up)
    with watch:
        assert fired.wait(20)
    watch.close()
    assert messages == ["waited 0.3 s for training data; see engine.timeout_s"]


def test_the_watchdog_fires_before_the_collective_timeout_of_other_ranks():
    for timeout_s in (0.4, 5.0, 600.0):
        watch = DataWatchdog(timeout_s, print)
        assert watch.limit_s <= timeout_s - min(2.0, timeout_s / 4)
        watch.close()


def test_time_outside_does_not_count():
    messages = []
    watch = DataWatchdog(0.2, lambda *what: messages.append(what))
    for _ in range(5):
        with watch:
            pass
        threading.Event().wait(0.1)
    watch.close()
    assert not messages
