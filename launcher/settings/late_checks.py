"""What can be told of the settings only when the data is read and everything is built."""

from __future__ import annotations

import sys

from launcher.messages import SettingsError, render
from launcher.settings import taken
from launcher.settings.checks import check_budget
from launcher.settings.resolved import Resolved
from launcher.settings.taken import Taken
from training.hooks import Budget


def check(resolved: Resolved, budget: Budget, settings: Taken, speaks: bool) -> None:
    """Refuse or warn of what only now can be told: lengths that never come, settings nobody read.

    All that reads settings has to be built by now. Raises SettingsError; warnings go to stderr
    where this rank `speaks`.
    """
    faults = check_budget(resolved, budget.total_steps, budget.steps_per_epoch)
    faults += taken.unread_faults(resolved, taken.seen(settings))
    if errors := [fault for fault in faults if fault.severity == "error"]:
        raise SettingsError(errors)
    if faults and speaks:
        print(render(faults), file=sys.stderr)
