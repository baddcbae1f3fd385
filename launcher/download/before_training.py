"""Brings the declared data before a run begins, for as many processes as there are."""

from __future__ import annotations

import sys
from typing import Any

from launcher.base.diagnostics import PROGRAM
from launcher.download.console import console
from launcher.download.errors import refused
from launcher.download.fetch import fetch
from launcher.download.progress import undrawn
from launcher.download.targets import targets
from slurm.environment import RankEnvironment


def bring(settings: Any, place: RankEnvironment | None, shown: bool, speaks: bool) -> None:
    """Fetch what the run asks for, if it does; `shown`: on stdout, as it goes on.

    Of the processes that torchrun or srun started on one machine the first to come fetches and
    tells of it, and the others wait; what was there the one that `speaks` tells. Several machines
    are not waited for, as they may share no disk. Raises SettingsError and FetchError.
    """
    if not settings.download.fetch:
        return
    if place is not None and place.world_size > place.local_size:
        _check_there(settings, place)
    if not shown:
        fetch(settings.download, lambda text: None, undrawn)
        return
    with console(sys.stdout) as (tell, draw):
        for one in fetch(settings.download, tell, draw):
            if speaks and not one.is_new:
                tell(one.line)


def _check_there(settings: Any, place: RankEnvironment) -> None:
    for target in targets(settings.download):
        if not target.path.exists():
            raise refused(
                f"{target.path} is not there, and no machine of {place.source} waits for another "
                "to fetch it",
                str(target.file.url),
                allowed="--download-data on one machine, or files that are there",
                fix=f"{PROGRAM} data fetch  with the same settings before, on each disk",
            )
