"""Whether a run learns on after its data, and how that begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.download_settings import Download
from launcher.config.resolved import Resolved
from launcher.continual import ledger
from launcher.continual.clock import Clock
from launcher.continual.course import Course
from launcher.continual.told import Told
from launcher.download.errors import FetchError
from launcher.download.fetch import fetch
from launcher.resume.resume_point import Resume
from launcher.run import restart
from launcher.run.failures import Report
from launcher.run.job_spec import Job
from training.storage import StorageError


def learns_on(resolved: Resolved, resumed: Resume | None) -> bool:
    """Whether more may come than the data: a folder is watched, or an experience is under way.

    Reads the disk. Raises SettingsError where nobody can tell.
    """
    if resolved.settings.continual.enabled:
        return True
    if resumed is None:
        return False
    try:
        known = ledger.load(resumed.source)
    except StorageError as fault:
        raise SettingsError([Diagnostic(str(fault), value=str(resumed.source))]) from fault
    return known is not None and (known.under_way is not None or resumed.step is not None)


def learn_on(
    job: Job,
    threads: int,
    is_learnt: bool,
    tell: Callable[[Report], None],
    handed_on: set[int] | None,
) -> Report:
    """Learn the data of `job`, and then what comes; the report of the end.

    The ranks live only while there is something to learn. An experience that cannot be learnt is told
    in a line, and ends nothing. `is_learnt`: the data that the run began with is. Touches the disk.
    """
    assert job.folder is not None, "the run folder was made"

    heard: list[Report] = []

    def train(job: Job, signals: set[int]) -> Report:
        def told(ending: Report) -> None:
            if ending.kind != "words" or job.lesson is None or not job.lesson.number:
                heard.append(ending)
                tell(ending)

        ending = restart.supervise(job, threads, told, signals=signals)
        if handed_on is not None:
            handed_on.update(signals)
        return ending

    voice = Told(job.folder, job.console)
    asks = job.resolved.settings.download.fetch
    refetch = partial(fetch_again, job.resolved.settings.download, voice) if asks else None
    ending = Course(job, train, voice, Clock(), is_learnt, refetch).run()
    if ending.kind != "ended" and ending not in heard:
        tell(ending)
    return ending


def fetch_again(download: Download, told: Told) -> None:
    """Ask the servers of declared files for newer ones; what goes wrong is told, and tried again.

    Touches the network and the disk.
    """
    try:
        fetch(download, told.say, again=True)
    except (FetchError, SettingsError) as fault:
        told.say(f"not fetched again: {str(fault).splitlines()[0]}")
