"""Sending what W&B has kept offline: what a person types for it, and the same done by us."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from training.trackers import wandb_local

_SYNC_S = 120.0


def command(paths: Sequence[Path], send: str) -> str:
    """What a person types to send these files; `send` is our own way. Imports W&B.

    `wandb sync` would send once more what the server has of a file that was written online.
    """
    if not all(map(wandb_local.is_offline, paths)):
        return send
    return shlex.join(["wandb", *_words(paths)])


def sync(paths: Sequence[Path]) -> None:
    """Send offline files, tables and pictures too, as far as that can be done in two minutes.

    Only where all are offline; else the order of rows could be broken. Talks to the network.
    """
    if paths and all(map(wandb_local.is_offline, paths)):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "wandb", *_words(paths)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SYNC_S,
            )


def _words(paths: Sequence[Path]) -> list[str]:
    from wandb.cli.cli import cli

    # Older versions must be told that files are parts of one run; newer ones see it.
    knows = any(option.name == "append" for option in cli.commands["sync"].params)
    more = ["--append"] if knows and len(paths) > 1 else []
    return ["sync", *more, *(str(path.parent) for path in paths)]
