"""A save on its way: writing on a thread beside the training, without any collective."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

from training.checkpoint.manifest import CheckpointError
from training.storage import StorageError


class Signals:
    """What the main thread tells the one that writes."""

    def __init__(self) -> None:
        self.called_off = Event()
        """Some rank could not write its share: there will be no checkpoint."""
        self.all_written = Event()
        """Every rank has written its share."""


class Writing:
    """Runs `write` and then, where there is one, `commit` on a thread of its own."""

    def __init__(
        self, write: Callable[[], None], commit: Callable[[Signals], None] | None = None
    ) -> None:
        self.signals = Signals()
        self.written = Event()
        """This rank's share is on disk, or will never be."""
        self.over = Event()
        """So is what this rank does after it."""
        self.fault: str | None = None
        """Why it failed; to be read after one of the two."""
        self._write = write
        self._commit = commit
        # Nobody waits for it where the process ends otherwise: then there is no checkpoint.
        Thread(target=self._run, name="checkpoint", daemon=True).start()

    def _run(self) -> None:
        try:
            self._write()
            self.written.set()
            if self._commit is not None:
                self._commit(self.signals)
        except (OSError, StorageError, CheckpointError) as fault:
            self.fault = str(fault)
        except BaseException as fault:
            self.fault = f"{type(fault).__name__}: {fault}"
            raise
        finally:
            self.written.set()
            self.over.set()
