"""The command `explain`: each setting with its value, origin, overridden values and meaning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError, listed, plain
from gearshift.launcher.commands import output
from gearshift.launcher.commands.catalog import SCHEMA
from gearshift.launcher.config import machine, render
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.errors import allowed
from gearshift.launcher.config.provenance import CliArgs, Resolved, Setting
from gearshift.launcher.config.resolve import PROMISE
from gearshift.launcher.config.schema import setting_infos, settings_class
from gearshift.launcher.plan import auto
from gearshift.launcher.plan.ladder import ENGINE
from gearshift.launcher.plan.target import Described
from gearshift.launcher.run.prepare import name_of
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.stages import pipeline


def main(command_line: CommandLine) -> int:
    """Print the settings, a section or one setting, for each stage. Raises SettingsError."""
    args = command_line.args
    out = command_line.out
    key = command_line.argument
    here = Described(machine.detect_machine())

    def prepare(args: CliArgs, out: Path | None) -> RunPlan:
        decision = auto.decide_engine(args, out, here)
        return replace(decision, name=name_of(decision.resolved.settings))

    ready = pipeline.prepare(args, out, command_line.diagnostics, prepare)
    left = pipeline.runs_of(ready) or [("", "", prepare(args, out))]
    runs = {name: plan.resolved for name, _, plan in left}
    titles = [title for _, title, _ in left]
    if SCHEMA.flag in command_line.flags:
        schema = settings_class(next(iter(runs.values())).settings.model.family).model_json_schema()
        # Files may have dotted keys beside sections.
        print(json.dumps(schema | {"patternProperties": {r"\.": {}}}, indent=2))
        return 0
    parts = {name: _explained(resolved, key) for name, resolved in runs.items()}
    contents = {name: content for name, (content, _) in parts.items()}
    texts = (title + text for title, (_, text) in zip(titles, parts.values(), strict=True))
    return output.show(
        command_line, contents.get("", contents), "\n".join(texts).removesuffix("\n")
    )


def _explained(resolved: Resolved, key: str) -> tuple[dict[str, Any], str]:
    """A setting, a section or all settings, as JSON and as text. Raises SettingsError."""
    info = setting_infos(resolved.settings.model.family).get(key)
    if info is None:
        section = _section(resolved, key)
        return render.origins_as_json(section), render.render_tree(section, history=True)
    value = resolved.values[key]
    names = ("description", "type", "allowed", "range", "unit")
    facts = {
        **render.origins_as_json({key: value})[key],
        **{name: getattr(info, name) for name in names},
    }
    facts["built_in"] = info.default
    rows: list[tuple[str, str | None]] = [("where", render.describe_origin(value.origin))]
    rows += [("replaced", line) for line in render.describe_overridden(value)]
    rows += [("allowed", allowed(info)), ("unit", info.unit), ("built-in", plain(info.default))]
    if key == ENGINE:  # what each engine would need, if engine auto chose among them
        facts["others"] = [] if resolved.chosen is None else list(resolved.chosen.others)
        rows += [("planned", line) for line in facts["others"]]
    if key == PROMISE:
        facts["unpromised"] = resolved.unpromised
        rows += [("not here", f"{name}: {why}") for name, why in resolved.unpromised.items()]
    lines = [
        f"{key} = {plain(value.value)}",
        *([f"  {info.description}"] if info.description else []),
    ]
    lines += [f"  {name:<10} {text}" for name, text in rows if text is not None]
    return {key: facts}, "".join(f"{line}\n" for line in lines)


def _section(resolved: Resolved, key: str) -> dict[str, Setting]:
    """All settings, or those of one section. Raises SettingsError if it does not exist."""
    prefix = f"{key}." if key else ""
    if section := {
        name: value for name, value in resolved.values.items() if name.startswith(prefix)
    }:
        return section
    from gearshift.launcher.config.input_errors import nearest_key

    sections = {name.rpartition(".")[0] for name in resolved.values} - {""}
    nearest = nearest_key(key, [*resolved.values, *sections])
    known = listed(list(resolved.values), "explain")
    fix = nearest and f"{PROGRAM} explain {nearest}"
    parts = {
        "where": f"command line: explain {key}",
        "allowed": known,
        "did_you_mean": nearest,
        "fix": fix,
    }
    raise SettingsError.of(f"unknown setting '{key}'", key=key, **parts)
