"""Notices that a rank waits for its data without end, and says where it hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

GiveUp = Callable[[str], object]
"""Told what is wrong; ends the process."""
_LOOKS = 20
_MARGIN_S = 2.0


class Watch:
    """A thread that gives up where one stay in the `with` block takes longer than it may.

    The ranks that have their data wait for this one in a collective, whose time-out only tells that
    somebody did not come. So this watch goes off a little before, and names the one who did not.
    """

    def __init__(self, timeout_s: float, give_up: GiveUp) -> None:
        """`timeout_s` is that of the collectives."""
        self.limit_s = timeout_s - min(_MARGIN_S, timeout_s / 4)
        self._give_up = give_up
        self._since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="data watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._since = None

    def close(self) -> None:
        """Watch no longer."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self.limit_s / _LOOKS)):
            since = self._since
            if since is not None and time.monotonic() - since > self.limit_s:
                self._give_up(f"waited {self.limit_s:.3g} s for its data; see engine.timeout_s")
                return
