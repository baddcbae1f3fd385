"""The command `data`: check a file or folder of data, or download the declared files."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import wrap

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.commands import output
from gearshift.launcher.config import errors, hub, machine
from gearshift.launcher.config.check import why_ineffective
from gearshift.launcher.config.command_line import CommandLine, arguments
from gearshift.launcher.config.paths import EMBEDDED
from gearshift.launcher.config.provenance import CliArgs, Resolved
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import PRETRAINED, config_of
from gearshift.launcher.report import data_check, page
from gearshift.launcher.report.data_check import Findings, find_families
from gearshift.models.catalog import HUB, folder_of, split_model_name

_LABEL = 18
_WIDTH = 78
_REST = "the same command downloads the rest"


def main(command_line: CommandLine) -> int:
    """Check data and write the page, or download; gives the exit code. Raises SettingsError."""
    if command_line.argument == "fetch":
        return _fetch_model(command_line) if command_line.operand else _fetch(command_line)
    path = command_line.operand
    out = command_line.out or data_check.DEFAULT_FOLDER
    args = command_line.args
    origin = f"command line: data check {path}"
    page.check_out(
        out / data_check.PAGE, f"--out {out}" if command_line.out else "default of --out"
    )
    family = None if args.model is None else _resolved(args, path).settings.model.family
    findings = inspect_matches(path, origin, find_families(path, family, origin), args)
    written = data_check.write(findings, out)
    names = ("path", "model", "format", "facts", "overlapping_groups", "sample")
    content = {name: getattr(findings, name) for name in names}
    content["text"] = [asdict(part) for part in findings.text]
    content["pictures"] = [
        {"name": each.name, "caption": each.caption} for each in findings.pictures
    ]
    output.show(
        command_line, content | {"files": [written]}, "\n".join(_lines(findings, written, args))
    )
    return exit_codes.FAILURE if findings.overlapping_groups else exit_codes.DONE


def inspect_matches(
    path: str, origin: str, matches: Sequence[tuple[str, str | None]], args: CliArgs
) -> Findings:
    """The findings of the only family that can use the data and has all settings of `args`.

    Raises SettingsError if several can, or none; then with the errors of each.
    """
    usable: dict[int, Findings] = {}
    diagnostics = list[Diagnostic]()
    for number, (family, format) in enumerate(matches):
        try:
            resolved = _resolved(replace(args, model=args.model or family), path)
            usable[number] = data_check.inspect(path, format, resolved)
        except SettingsError as error:
            prefix = f"as {family}: " if matches[1:] else ""
            diagnostics += [
                replace(each, message=prefix + each.message) for each in error.diagnostics
            ]
    if not usable:
        raise SettingsError(diagnostics)
    first, *others = usable
    if others:
        allowed = "\n           ".join(": ".join(map(str, matches[number])) for number in usable)
        fix = f"{PROGRAM} data check {shlex.quote(path)} --model {matches[first][0]}"
        message = f"'{path}' can be read by several families"
        raise SettingsError.of(message, value=path, where=origin, allowed=allowed, fix=fix)
    return usable[first]


def _resolved(args: CliArgs, path: str) -> Resolved:
    """The settings that read `path`. Raises SettingsError, also if they read other data."""
    options = {**args.options, "data.path": ("data check", path)}
    resolved = resolve(replace(args, options=options), machine.detect_machine(), world_size=1)
    if "data.path" in resolved.values and (reason := why_ineffective(resolved.values, "data.path")):
        raise SettingsError([errors.about_value(resolved.values, "data.path", reason)])
    return resolved


def _lines(findings: Findings, written: Path, args: CliArgs) -> Iterator[str]:
    is_file = not findings.path.startswith(EMBEDDED)
    kind = findings.format or ("format known only to the model" if is_file else "embedded data")
    yield f"{findings.path}: {kind}"
    shapes = [(f"a batch, {name}", text) for name, text in page.fact_rows(findings.sample)]
    facts = [
        ("read by", findings.model),
        *page.fact_rows(findings.facts),
        ("overlap", data_check.overlap(findings)),
    ]
    parts = [(f"a sample, {name}", text) for name, text in data_check.sample_rows(findings)]
    for name, text in (*facts, *parts, *shapes):
        first, *more = [line for part in text.splitlines() for line in wrap(part, _WIDTH)] or [""]
        yield f"  {name:<{_LABEL}} {first}"
        yield from (f"  {'':<{_LABEL}} {line}" for line in more)
    yield f"wrote {written}"
    family, size = split_model_name(findings.model)
    sizes = list(config_of(family).SIZES)
    model = findings.model if size in sizes else family  # a pretrained model has its own size
    yield _train_line(args, model, data=("--data", findings.path))


def _train_line(args: CliArgs, model: str | None, **options: tuple[str, str]) -> str:
    """The command that trains with the settings of `args`, and `options` by their key."""
    words = arguments(replace(args, model=model, options=options))
    return redact(f"train on it:  {PROGRAM} {shlex.join(words)}")


def _fetch(command_line: CommandLine) -> int:
    """Download the declared files; gives the exit code. Raises SettingsError, FetchError."""
    args = command_line.args
    options = {**args.options, "download.fetch": ("data fetch", "true")}
    if command_line.out is not None:
        options["download.folder"] = ("--out", str(command_line.out))
    resolved = resolve(replace(args, options=options), machine.detect_machine(), world_size=1)
    from gearshift.launcher.download.fetch import fetch  # with requests, which takes time to import

    signals.leave(_REST)
    files = fetch(resolved.settings.download, is_shown=not command_line.as_json)
    path = getattr(resolved.settings.data, "path", None)
    option = ("--download-data", "") if path is None else ("--data", str(path))
    return output.show(
        command_line, [asdict(f) for f in files], _train_line(args, args.model, data=option)
    )


def _fetch_model(command_line: CommandLine) -> int:
    """Download a model of the hub into its cache; gives the exit code. Raises SettingsError."""
    typed = command_line.operand
    if not typed.startswith(HUB):
        message = f"data fetch '{typed}' names no model of the hub"
        where = f"command line: data fetch {typed}"
        raise SettingsError.of(message, value=typed, where=where, allowed=hub.FORM)
    signals.leave(_REST)
    name = hub.fetch(typed, weights=True)
    path = folder_of(name)
    text = f"{name} is in {path}\ntrain it:  {PROGRAM} --set {PRETRAINED}={name}"
    return output.show(command_line, {"model": name, "path": path}, text)
