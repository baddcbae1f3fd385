"""One run of a comparison, as an ordinary run in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.base import exit_codes, package_guard
from launcher.cli.options import BY_FLAG
from launcher.compare.busy import Load, Watch
from launcher.config.resolved import CliArgs
from launcher.run.signals import answered
from launcher.run_folder import run_folder
from slurm.generation import OF_A_JOB

_GRACE_S = 60.0
"""For a run that was asked to end; after that, or at a second Ctrl-C, it is killed."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    folder: Path
    error: str | None
    """The first line of what was wrong; None: it came to its end."""
    load: Load


class Interrupted(Exception):
    """The person, or the system, wants the comparison to end; `code` is what to end with."""

    def __init__(self, code: int) -> None:
        super().__init__("interrupted")
        self.code = code


def run(words: CliArgs, folder: Path) -> Ended:
    """Train as `words` say, into `folder`, and wait for the end. Raises Interrupted.

    Its checkpoints are gone afterwards: a comparison would fill the disk with them.
    """
    command = [sys.executable, "-m", "launcher", "run", *arguments(words), f"--out={folder}"]
    # Of a job the comparison as a whole is a life, and none of its runs.
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_JOB}
    environment = {**inherited, "PYTHONPATH": package_guard.search_path(os.environ)}
    watch = Watch()
    # A session of its own: Ctrl-C reaches it through us, and once.
    process = subprocess.Popen(
        [*command, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        told, said = _wait(process)
    finally:
        _forget_state(folder)
    error = None if process.returncode == exit_codes.DONE else _first_line(told, said)
    return Ended(folder, error, watch.load())


def arguments(words: CliArgs) -> list[str]:
    """The words as they are typed behind `run`."""
    typed = [f"--model={words.model}"] if words.model is not None else []
    typed += [f"--mode={words.mode}"] if words.mode is not None else []
    typed += [f"--engine={words.engine}"] if words.engine is not None else []
    typed += [f"--config={path}" for path in words.configs]
    for flag, text in words.options.values():
        typed.append(flag if BY_FLAG[flag].metavar is None else f"{flag}={text}")
    return [*typed, *(f"--set={text}" for text in words.sets)]


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise Interrupted, so that what was measured can be kept."""

    def end(number: int, frame: object) -> None:
        is_key = number == signal.SIGINT
        raise Interrupted(exit_codes.INTERRUPTED if is_key else exit_codes.RUN_AGAIN)

    with answered((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), end):
        yield


def _wait(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate()
    except Interrupted:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_GRACE_S)
        except (Interrupted, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its session, ranks included
            process.communicate()
        raise


def _forget_state(folder: Path) -> None:
    for checkpoints in folder.glob(f"**/{run_folder.CHECKPOINTS}"):
        shutil.rmtree(checkpoints, ignore_errors=True)
        for link in run_folder.LINKS:
            (checkpoints.parent / link).unlink(missing_ok=True)


def _first_line(told: str, said: str) -> str:
    """Of what the run told in JSON, or else of what it said last on stderr."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = _error(told) or (lines[-1] if lines else "") or "it ended without a word"
    return text.splitlines()[0].removeprefix("error: ")


def _error(told: str) -> str | None:
    try:
        value: Any = json.loads(told)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if value.get("faults"):
        return str(value["faults"][0]["what"])
    return value.get("error") or value.get("reason")
