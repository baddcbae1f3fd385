"""The words that a job hands on to the launcher: those that were typed, but for submit's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from launcher.cli.options import BY_FLAG
from launcher.submit.options import SUBMIT

_KNOWN = {option.flag: option for option in SUBMIT}
_SAID_ANEW = ("--out", "--dry-run", "--json")
"""Options of a run whose value is another one in the job."""
MODES = ("--mode", *(flag for flag, option in BY_FLAG.items() if option.mode is not None))


def of_run(typed: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """The options of a run among `typed`, with their values, without some."""
    kept: list[str] = []
    words = list(typed)
    while words:
        word = words.pop(0)
        if word == "--":
            break
        flag = word.partition("=")[0]
        option = _KNOWN.get(flag)
        if option is None:
            continue  # the command itself: what else there is, is a fault by now
        taken = [word]
        if option.metavar is not None and "=" not in word and words:
            taken.append(words.pop(0))
        if flag in BY_FLAG and flag not in (*_SAID_ANEW, *without):
            kept += taken
    return kept
