"""Signals that are answered otherwise for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def answered(numbers: Iterable[int], handler: Callable[[int, object], None]) -> Iterator[None]:
    """Meanwhile `handler` answers the signals `numbers`; afterwards who did before.

    For the main thread, the only one that may ask for that.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def held_back(names: Iterable[str]) -> Iterator[None]:
    """Meanwhile the signals `names` wait; those that came are answered on leaving.

    Outside the main thread, which alone answers signals, nothing need wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with answered((getattr(signal, name) for name in names), lambda number, _: came.append(number)):
        yield
    for number in came:
        signal.raise_signal(number)
