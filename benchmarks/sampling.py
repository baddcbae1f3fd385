"""The peak of a quantity that a thread reads again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


class Peak:
    """The largest value so far; 0: none was read."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def peak(read: Callable[[], int], every_s: float) -> Iterator[Peak]:
    """The peak of the bytes that `read` returns, read each `every_s` seconds."""
    over, found = Event(), Peak()

    def sample() -> None:
        while not over.wait(every_s):
            found.bytes = max(found.bytes, read())

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
