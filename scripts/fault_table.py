"""The table of faults for docs/troubleshooting.md, with commands as for a run in runs/mine."""

from __future__ import annotations

import re

from benchmarks.figures import markdown
from launcher.run.faults import FAULTS

FIXES = {
    "again": "python -m launcher --config runs/mine/settings.yaml",
    "retry": "python -m launcher resume runs/mine",
    "nonfinite": 'python -m launcher resume runs/mine --set "train.on_nonfinite=skip 9"',
    "track": "python -m launcher track runs/mine",
    "loader": "--num-workers 2",
    "lower_lr": "1e-4",
    "higher_lr": "0.01",
    "timeout_s": "2400",
    "smaller_batch": "4",
    "global_batch": "32",
    "port": "29611",
    "host": "node7",
}
"""Values for the commands of the table of faults, as for a run in runs/mine."""
_VALUE = re.compile(r"{\w+}")
_COMMAND = re.compile(r"(python|export|timedatectl)( \S+)+")
"""In the text of a fix, whose words follow two spaces."""


def table() -> list[str]:
    """A row for each fault, with its message, its likely cause and the next command."""
    rows = (
        [f.title, f"`{_VALUE.sub('…', f.seen)}`", f.cause, _COMMAND.sub(r"`\g<0>`", f.fix.format(**FIXES))]
        for f in FAULTS.values()
    )
    return markdown(["fault", "what you see", "likely cause", "next command"], rows)
