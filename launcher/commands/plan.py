"""The command `plan`: memory, traffic and operations of a run, without running it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.config import machine
from launcher.config.command_line import CommandLine
from launcher.config.options import GPU_MEMORY, GPUS, JSON, NODES, RAM
from launcher.config.provenance import CliArgs, Resolved
from launcher.plan import target
from launcher.plan.target import Described
from launcher.resume.decide import decide
from launcher.run import affinity
from training.logging.printable import printable


def main(command_line: CommandLine) -> int:
    """Print the plan, and what fits if it does not; the exit code. Raises SettingsError."""
    diagnostics = list(command_line.diagnostics)
    described = target.describe(command_line.values, machine.detect_machine(), diagnostics)
    try:
        resolved = _resolved(described, command_line.args, ())
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if diagnostics:
        raise SettingsError(diagnostics)
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from launcher.plan import advice, render
    from launcher.plan.plan import plan_run

    plan = plan_run(resolved, described)
    found = []
    if plan.fits is False:
        with_sets = partial(_resolved, described, command_line.args)
        found = advice.advise(resolved, lambda sets: plan_run(with_sets(sets), described))
    if JSON.flag in command_line.flags:
        pieces = [{"set": each.sets, **each.plan.as_json()} for each in found]
        print(json.dumps(plan.as_json() | {"advice": pieces}, indent=2))
    else:
        print(printable(render.text(resolved, plan, found, _run_command(command_line))))
    return 0


def _resolved(described: Described, args: CliArgs, sets: Sequence[str]) -> Resolved:
    with_sets = replace(args, sets=(*args.sets, *sets))
    return decide(with_sets, None, described.machine, described.world_size).resolved


def _run_command(command_line: CommandLine) -> str:
    """The run that was planned, as typed, without the options of the machine."""
    own = {option.flag for option in (GPUS, GPU_MEMORY, RAM, NODES)}
    words, kept = list(command_line.argv), []
    while words:
        word = words.pop(0)
        if word in own:
            del words[:1]
        elif word.partition("=")[0] not in own:
            kept.append(word)
    return shlex.join([*PROGRAM.split(), *kept])
