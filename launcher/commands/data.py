"""The command `data`: check a file or folder of data, or download the declared files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import SettingsError, program_line
from gearshift.launcher.base.redaction import redact_values
from gearshift.launcher.commands import output
from gearshift.launcher.config import errors, hub, machine
from gearshift.launcher.config.argument_list import arguments
from gearshift.launcher.config.check import why_ineffective
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.paths import EMBEDDED
from gearshift.launcher.config.provenance import CliArgs, Resolved, hub_names
from gearshift.launcher.config.resolve import fetch_data, resolve
from gearshift.launcher.config.schema import DATA_PATH
from gearshift.launcher.report import data_check, earlier_page, page
from gearshift.launcher.report.data_check import Findings, find_families
from gearshift.models.catalog import HUB, folder_of, local_path, split_model_name

_REST = "the same command downloads the rest"


def main(command_line: CommandLine) -> int:
    """Check data and write the page, or download; gives the exit code. Raises SettingsError."""
    if command_line.argument == "fetch":
        if command_line.operand:
            return _fetch_model(command_line)
        return _fetch(command_line)
    path = command_line.operand
    out = command_line.out or data_check.DEFAULT_FOLDER
    args = command_line.args
    earlier_page.check_out(
        out / data_check.PAGE,
        f"--out {out}" if command_line.out else "default of --out",
    )

    origin = f"command line: data check {path}"
    location = path
    if path.startswith(HUB):
        from gearshift.launcher.config import hub_data

        path = hub_data.pin(path, may_download=True)
        hub_data.fetch(path, may_download=True)
        location = local_path(path)
    family = None
    if args.model is not None:
        family = _resolved(args, path).settings.model.family
    findings = inspect_matches(path, origin, find_families(location, family, origin), args)
    file = data_check.write(findings, out)
    content = {
        **asdict(findings),
        "pictures": [{"name": each.name, "caption": each.caption} for each in findings.pictures],
        "files": [file],
    }
    output.show(command_line, content, "\n".join(_lines(findings, file, args)))
    if findings.overlapping_groups:
        return exit_codes.FAILURE
    return exit_codes.DONE


def inspect_matches(
    path: str, origin: str, matches: Sequence[tuple[str, str | None]], args: CliArgs
) -> Findings:
    """The findings of the only family that can use the data and has all settings of `args`.

    Raises SettingsError if several can, or none; then with the errors of each that has a fix, or
    else of all.
    """
    usable = []
    diagnostics = []
    # Formats of several families may match: reading tells which can use the data.
    for family, format in matches:
        try:
            resolved = _resolved(replace(args, model=args.model or family), path)
            findings = data_check.inspect(path, format, resolved)
            usable.append((family, f"{family}: {format}"))
        except SettingsError as error:
            prefix = f"as {family} (--model {family}): " if len(matches) > 1 else ""
            for each in error.diagnostics:
                diagnostics.append(replace(each, message=prefix + each.message))
    if not usable:
        # The family that knows what to type comes nearest to reading it.
        raise SettingsError([each for each in diagnostics if each.fix] or diagnostics)
    if len(usable) > 1:
        raise SettingsError.of(
            f"'{path}' can be read by several families",
            value=path,
            where=origin,
            allowed="\n           ".join(text for _, text in usable),
            fix=f"--model {usable[0][0]}",
        )
    return findings


def _resolved(args: CliArgs, path: str) -> Resolved:
    """The settings that read `path`. Raises SettingsError, also if they read other data."""
    resolved = resolve(
        replace(args, options={**args.options, "data.path": ("data check", path)}),
        machine.detect_machine(),
        world_size=1,
    )
    reason = "data.path" in resolved.values and why_ineffective(resolved.values, "data.path")
    if reason:
        raise SettingsError([errors.about_value(resolved.values, "data.path", reason)])
    return resolved


def _lines(findings: Findings, file: Path, args: CliArgs) -> Iterator[str]:
    is_embedded = findings.path.startswith(EMBEDDED)
    unknown = "embedded data" if is_embedded else "format known only to the model"
    yield f"{findings.path}: {findings.format or unknown}"

    rows = [
        ("read by", findings.model),
        *page.fact_rows(findings.facts),
        ("overlap", data_check.overlap(findings)),
    ]
    rows += [(f"a sample, {name}", text) for name, text in data_check.sample_rows(findings)]
    rows += [(f"a batch, {name}", text) for name, text in page.fact_rows(findings.sample)]
    for name, text in rows:
        indented = text.replace("\n", "\n" + " " * 21)
        yield f"  {name:<18} {indented}"
    yield f"wrote {file}"

    model = args.model or split_model_name(findings.model)[0]
    words = arguments(replace(args, model=model, options={"data.path": ("--data", findings.path)}))
    yield f"train on it:  {program_line(*redact_values(words))}"


def _fetch(command_line: CommandLine) -> int:
    """Download the declared files; gives the exit code. Raises SettingsError, FetchError."""
    args = command_line.args
    options = {**args.options, "download.fetch": ("data fetch", "true")}
    if command_line.out:
        options["download.folder"] = ("--out", str(command_line.out))
    resolved = resolve(replace(args, options=options), machine.detect_machine(), world_size=1)
    from gearshift.launcher.download.fetch import fetch  # with requests, which takes time to import

    signals.leave(_REST)
    fetch_data(resolved.values)
    files = fetch(resolved.settings.download, is_shown=not command_line.as_json)
    paths = [str(file.path) for file in files] + hub_names(resolved.values, DATA_PATH)
    return output.show(command_line, list(map(asdict, files)), "\n".join(paths))


def _fetch_model(command_line: CommandLine) -> int:
    """Download a model of the hub into its cache; gives the exit code. Raises SettingsError."""
    signals.leave(_REST)
    name = hub.fetch(command_line.operand, weights=True)
    path = folder_of(name)
    return output.show(command_line, {"model": name, "path": path}, f"{name} is in {path}")
