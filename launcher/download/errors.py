"""What keeps data from being fetched: a fault that may pass, and one that will not."""

from __future__ import annotations

from launcher.base.diagnostics import Diagnostic, SettingsError, render


class FetchError(Exception):
    """The network, a server or the disk failed in spite of all retries (exit code 1)."""

    def __init__(self, what: str, url: str, fix: str) -> None:
        self.fault = Diagnostic(what, where=url, fix=fix)
        super().__init__(render([self.fault]).removeprefix("error: "))


class Transient(Exception):
    """One attempt failed, and another may do better."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        """How long the server asks to wait."""


class StartOver(Exception):
    """What was fetched so far is of no use: the file has changed, or the server says so."""


def refused(
    what: str, url: str, allowed: str | None = None, fix: str | None = None
) -> SettingsError:
    """What a person can mend: the wrong URL, file or checksum.

    `what` may hold names that a server or an archive gave, which could move the cursor.
    """
    printable = "".join(letter if letter.isprintable() else "?" for letter in what)
    return SettingsError([Diagnostic(printable, value=url, where=url, allowed=allowed, fix=fix)])
