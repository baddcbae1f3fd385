"""A saved run in new processes and a temporary folder, to replay its steps or to evaluate it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import CommandFailed, SettingsError
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.config import machine
from gearshift.launcher.config.provenance import RESUMED_LAYER, CliArgs, Origin, Resolved, Setting
from gearshift.launcher.config.resolve import fetch_data, resolve
from gearshift.launcher.config.resumed_settings import Base
from gearshift.launcher.run import prepare, supervisor
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.saved_runs.saved_model import SavedModel
from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.manifest import Manifest

_PREFIX = "gearshift-saved-"
_ORIGIN = "the settings of the run"
DATA = "the data that the run was trained on; if it moved, --data PATH"


def resolved_as(model: SavedModel, manifest_of_run: Manifest, args: CliArgs) -> Resolved:
    """The settings of a model for new processes, with the engine and number of them of `args`.

    By default, those that wrote the checkpoint, as for a resumed run; its pretrained weights exist.
    Reads the disk. Raises SettingsError.
    """
    model.check_pretrained()
    values = {
        **model.settings,
        "engine.name": manifest_of_run.engine,
        "engine.nproc": manifest_of_run.world_size,
    }
    if "data.path" in args.options and isinstance(values.get("data.path"), list):
        values["data.weights"] = None  # those of the sources of the run
    if args.engine not in (None, manifest_of_run.engine):
        values["unread_settings"] = "warn"
        values.pop("engine.ds_config", None)
    origin = Origin(RESUMED_LAYER, _ORIGIN)
    entries = {key: Setting(value, origin) for key, value in values.items()}
    try:
        resolved = resolve(
            CliArgs(engine=args.engine, options=args.options),
            machine.detect_machine(),
            None,
            Base(entries, {}),
        )
        fetch_data(resolved.values)
        return resolved
    except SettingsError as error:
        hints = {"data.path": "--data PATH"}  # this command takes no settings
        raise SettingsError(
            [replace(each, fix=None, hint=hints.get(each.key or "")) for each in error.diagnostics]
        ) from error


@contextmanager
def rerun(
    plan: RunPlan, checkpoint: Path | None, noun: str, threads: int | None = None
) -> Iterator[RunEnd]:
    """Run the ranks of `plan` to their end, in a folder that is removed with the block.

    The run folder that it resumes is only read, for the files of the task; its ranks see the
    `checkpoint` alone. `threads`: of each rank; None: as in a new run. Uses a folder in TMPDIR.
    Raises SettingsError, CommandFailed about the `noun`.
    """
    assert plan.resume
    resume = plan.resume
    resolved = plan.resolved
    with temporary_folder(_PREFIX) as home:
        source = home / "source"
        (source / run_folder.CHECKPOINTS).mkdir(parents=True)
        if checkpoint:
            # Ranks repair the folder around a checkpoint; here they find only this link.
            link = source / run_folder.CHECKPOINTS / manifest.step_folder(resume.step or 0)
            link.symlink_to(checkpoint.resolve(), target_is_directory=True)
        folder = run_folder.create(resolved, home / "rerun", "").path
        for file in run_folder.task_files(resume.source):
            shutil.copyfile(file, folder / file.name)
        # As in the run: the order of sums depends on them.
        settings = resolved.settings
        if threads is None:
            cores = machine.detect_machine().cores
            threads = prepare.threads(settings, cores, resolved.nproc, settings.continual.enabled)
        plan = replace(plan, resume=replace(resume, source=source), folder=folder, threads=threads)
        end = supervisor.supervise(plan)
        code = end.exit_code
        # A signal can interrupt a rank during an import, which then fails with an error of its own.
        if end.signals:
            code = signals.code_of(min(end.signals))
        if code in (exit_codes.INTERRUPTED, exit_codes.RUN_AGAIN):
            raise CommandFailed(
                f"the {noun} was stopped before it finished; nothing was written", code
            )
        if code == exit_codes.INVALID_INPUT:
            first = end.diagnostics[0]
            allowed = DATA if "has changed" in first.message else first.allowed
            # Its fix is one for a run that trains.
            raise SettingsError([replace(first, allowed=allowed, fix=None, hint=None)])
        if code != exit_codes.DONE:
            text = "\n".join(filter(None, [end.text, end.trace]))
            raise CommandFailed(f"the {noun} failed: {text.removeprefix('error: ')}")
        yield replace(end, folder=folder)
