"""The command `explain`: each setting with its value, origin, overridden values and meaning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import SettingsError, listed, plain
from gearshift.launcher.commands import output
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
from gearshift.training.callbacks.base import Json


def main(command_line: CommandLine) -> int:
    """Print the settings, a section or one setting, for each stage. Raises SettingsError."""
    args = command_line.args
    out = command_line.out
    here = Described(machine.detect_machine())

    def prepare(args: CliArgs, out: Path | None) -> RunPlan:
        decision = auto.decide_engine(args, out, here)
        return replace(decision, name=name_of(decision.resolved.settings))

    ready = pipeline.prepare(args, out, command_line.diagnostics, prepare)
    runs = pipeline.runs_of(ready) or [("", "", prepare(args, out))]
    if "--schema" in command_line.values:
        _, _, plan = runs[0]
        schema = settings_class(plan.resolved.settings.model.family).model_json_schema()
        schema["patternProperties"] = {r"\.": {}}  # files may have dotted keys beside sections
        print(json.dumps(schema, indent=2))
        return exit_codes.DONE

    contents = {}
    text = []
    for name, title, plan in runs:
        contents[name], explanation = _explained(plan.resolved, command_line.argument)
        text.append(title + explanation)
    return output.show(command_line, contents.get("", contents), "\n".join(text).removesuffix("\n"))


def _explained(resolved: Resolved, key: str) -> tuple[Json, str]:
    """A setting, a section or all settings, as JSON and as text. Raises SettingsError."""
    info = setting_infos(resolved.settings.model.family).get(key)
    # No setting of this name: a section, or all of them.
    if info is None:
        section = _section(resolved, key)
        return render.origins_as_json(section), render.render_tree(section, history=True)
    value = resolved.values[key]
    facts = {
        **render.origins_as_json({key: value})[key],
        "description": info.description,
        "type": info.type,
        "allowed": info.allowed,
        "range": info.range,
        "unit": info.unit,
        "built_in": info.default,
    }
    rows = [
        ("where", render.describe_origin(value.origin)),
        *[("replaced", line) for line in render.describe_overridden(value)],
        ("allowed", allowed(info)),
        ("unit", info.unit),
        ("built-in", plain(info.default)),
    ]
    if key == ENGINE:  # what each engine would need, if engine auto chose among them
        facts["others"] = list(resolved.chosen.others) if resolved.chosen else []
        rows += [("planned", line) for line in facts["others"]]
    if key == PROMISE:
        facts["unpromised"] = resolved.unpromised
        rows += [("not here", f"{name}: {why}") for name, why in resolved.unpromised.items()]

    lines = [f"{key} = {plain(value.value)}"]
    if info.description:
        lines.append(f"  {info.description}")
    lines += [f"  {name:<10} {line}" for name, line in rows if line is not None]
    return {key: facts}, "\n".join([*lines, ""])


def _section(resolved: Resolved, key: str) -> dict[str, Setting]:
    """All settings, or those of one section. Raises SettingsError if it does not exist."""
    values = resolved.values
    prefix = f"{key}." if key else ""
    section = {name: value for name, value in values.items() if name.startswith(prefix)}
    if section:
        return section
    from gearshift.launcher.config.input_errors import nearest_key

    sections = {name.rpartition(".")[0] for name in values} - {""}
    nearest = nearest_key(key, [*values, *sections])
    raise SettingsError.of(
        f"unknown setting '{key}'",
        key=key,
        where=f"command line: explain {key}",
        allowed=listed(list(values), "explain"),
        did_you_mean=nearest,
        fix=nearest,
        replaces=(key,),
    )
