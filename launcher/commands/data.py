"""Tells what is in a file or folder of data: format, counts, splits and their overlap, pictures."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import wrap

from launcher.base import exit_codes
from launcher.base.diagnostics import (
    PROGRAM,
    Diagnostic,
    SettingsError,
    as_json,
    counted,
    render,
)
from launcher.config import machine
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.resolve import resolve
from launcher.config.schema import config_of
from launcher.data_check import findings, folder, page
from launcher.data_check.findings import Findings
from launcher.data_check.formats import Recognised, recognise, several
from launcher.download.console import console, draw_nothing, print_nothing
from launcher.download.fetch import Fetched, fetch
from launcher.download.transfer import FetchError
from models.catalog import split_model_name
from training.logging.strict_json import encode

_LABEL, _WIDTH = 18, 78


def main(command_line: CommandLine) -> int:
    """Look, tell, and write the page; or fetch. The exit code. Raises SettingsError."""
    if command_line.argument == "fetch":
        return fetch_files(command_line)
    if command_line.diagnostics or command_line.operand is None:
        raise SettingsError(command_line.diagnostics)
    path, out = command_line.operand, command_line.out or folder.DEFAULT
    place = f"the command line: data check {path}"
    folder.check(out, f"--out {out}" if command_line.out else "no --out was given")
    family, resolved = None, None
    if command_line.args.model is not None:  # a model that is not there is told as for a run
        resolved = _resolved(command_line.args, path)
        family = resolved.settings.model.family
    found = recognise(path, family, place)
    if resolved is not None and split_model_name(command_line.args.model or "")[1]:
        told = findings.look(path, found[0].format, resolved)
    else:
        told = only(path, place, found, command_line.args)
    written = folder.write(told, out)
    if JSON.flag in command_line.flags:
        print(encode(_as_json(told, written), indent=2))
    else:
        print("\n".join(_lines(told, written)))
    return exit_codes.FAILURE if told.shared_groups else exit_codes.DONE


def only(path: str, place: str, found: Sequence[Recognised], words: CliArgs) -> Findings:
    """What the one family finds that can use the data.

    Raises SettingsError where several can, and where none can with what each of them says.
    """
    looked: list[tuple[Recognised, Findings]] = []
    diagnostics: list[Diagnostic] = []
    candidates = _candidates(path, found, words)
    for one, resolved in candidates:
        try:
            looked.append((one, findings.look(path, one.format, resolved)))
        except SettingsError as error:
            said = f"as {one.family}: " if candidates[1:] else ""
            diagnostics += [
                replace(fault, message=said + fault.message) for fault in error.diagnostics
            ]
    if len(looked) == 1:
        return looked[0][1]
    raise SettingsError(
        diagnostics if not looked else [several(path, place, [a for a, _ in looked])]
    )


def _candidates(
    path: str, found: Sequence[Recognised], words: CliArgs
) -> list[tuple[Recognised, Resolved]]:
    """Those of `found` that know all settings in `words`. Raises SettingsError where none does."""
    candidates: list[tuple[Recognised, Resolved]] = []
    wrong: SettingsError | None = None
    for one in found:
        try:
            model = _smallest(one.family)
            candidates.append((one, _resolved(replace(words, model=model), path)))
        except SettingsError as error:
            wrong = wrong or error
    if wrong is not None and not candidates:
        raise wrong
    return candidates


def _resolved(words: CliArgs, path: str) -> Resolved:
    """The settings of a run on the data. Raises SettingsError."""
    options = {**words.options, "data.path": ("data check", path)}
    return resolve(replace(words, options=options), machine.detect_machine(), world_size=1)


def _smallest(family: str) -> str:
    """The model by its smallest size: what is told of data hardly depends on it."""
    sizes = config_of(family).SIZES
    return f"{family}:{next(iter(sizes))}" if sizes else family


def _lines(found: Findings, written: Sequence[Path]) -> Iterator[str]:
    is_file = not found.path.startswith("embedded:")
    kind = found.format or ("in no format that is known by itself" if is_file else "embedded data")
    yield f"{found.path}: {kind}"
    shapes = [(f"a batch, {name}", text) for name, text in page.rows(found.sample)]
    told = [("read by", found.model), *page.rows(found.facts), ("overlap", page.overlap(found))]
    for name, text in (*told, *shapes):
        first, *more = wrap(text, _WIDTH) or [""]
        yield f"  {name:<{_LABEL}} {first}"
        yield from (f"  {'':<{_LABEL}} {line}" for line in more)
    pictures = f" and {counted(len(written) - 1, 'picture')}" if written[1:] else ""
    yield f"wrote {written[0]}{pictures}"
    family, _ = split_model_name(found.model)
    yield f"train on it:  {PROGRAM} --model {family} --data {shlex.quote(found.path)}"


def _as_json(found: Findings, written: Sequence[Path]) -> dict[str, object]:
    return {
        "path": found.path,
        "model": found.model,
        "format": found.format,
        "facts": found.facts,
        "shared_groups": found.shared_groups,
        "sample": found.sample,
        "pictures": [{"name": one.name, "caption": one.caption} for one in found.pictures],
        "files": [str(file) for file in written],
    }


def fetch_files(command_line: CommandLine) -> int:
    """Download the declared files; gives the exit code. Raises SettingsError."""
    resolved = _resolved_for_fetch(command_line)
    as_json_text = JSON.flag in command_line.flags
    silent = nullcontext((print_nothing, draw_nothing))
    try:
        with silent if as_json_text else console(sys.stdout) as (show, draw):
            found = fetch(resolved.settings.download, show, draw)
            for fetched in found:
                if not fetched.is_new:
                    show(fetched.line)
    except FetchError as error:
        if as_json_text:
            print(encode({"diagnostics": as_json([error.diagnostic])}, indent=2))
        else:
            print(render([error.diagnostic]), file=sys.stderr)
        return exit_codes.FAILURE
    if as_json_text:
        print(encode([_fetched_json(fetched) for fetched in found], indent=2))
    else:
        print(_next_command(command_line, resolved))
    return exit_codes.DONE


def _resolved_for_fetch(command_line: CommandLine) -> Resolved:
    """The settings of a run that downloads. Raises SettingsError."""
    options = {**command_line.args.options, "download.fetch": ("data fetch", "true")}
    if command_line.out is not None:
        options["download.folder"] = ("--out", str(command_line.out))
    diagnostics = list(command_line.diagnostics)
    try:
        resolved = resolve(
            replace(command_line.args, options=options), machine.detect_machine(), world_size=1
        )
    except SettingsError as error:
        diagnostics += error.diagnostics
    if diagnostics:
        raise SettingsError(diagnostics)
    return resolved


def _next_command(command_line: CommandLine, resolved: Resolved) -> str:
    """The command that trains on the files."""
    words = command_line.args
    typed = ["--model", words.model] if words.model else []
    path = getattr(resolved.settings.data, "path", None)
    for config in words.configs:
        typed += ["--config", str(config)]
    typed += ["--download-data"] if path is None else ["--data", str(path)]
    return f"train on it:  {PROGRAM} {shlex.join(typed)}"


def _fetched_json(fetched: Fetched) -> dict[str, object]:
    return {**asdict(fetched), "path": str(fetched.path)}
