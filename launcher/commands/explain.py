"""The command `explain`: each setting with its value, origin, overridden values and meaning."""

from __future__ import annotations

import json
from typing import Any

from launcher.base.diagnostics import (
    PROGRAM,
    SettingsError,
    listed,
    plain,
)
from launcher.config import editor_schema, machine, render
from launcher.config.command_line import CommandLine
from launcher.config.errors import allowed
from launcher.config.options import JSON, SCHEMA
from launcher.config.provenance import Resolved, Setting
from launcher.config.schema import SettingInfo, setting_infos
from launcher.plan import auto
from launcher.plan.target import Described
from launcher.run.experience import resolve_next_start
from launcher.stages import pipeline, selection
from launcher.stages.pipeline import Pipeline
from training.logging.printable import printable


def main(command_line: CommandLine) -> int:
    """Print the settings, a section or one setting, for each stage. Raises SettingsError."""
    stages = pipeline.prepare_pipeline(
        command_line.args, command_line.out, command_line.diagnostics
    )
    if stages is not None and stages.left:
        return _print_stages(stages, command_line)
    resolved = _resolved(command_line)
    if SCHEMA.flag in command_line.flags:
        print(json.dumps(editor_schema.settings(resolved.settings.model.family), indent=2))
    elif JSON.flag in command_line.flags:
        print(json.dumps(_as_json(resolved, command_line.argument), indent=2))
    else:
        _print(resolved, command_line.argument)
    return 0


def _print_stages(stages: Pipeline, command_line: CommandLine) -> int:
    runs = [(stage, begun.resolved) for stage, begun in stages.left]
    if SCHEMA.flag in command_line.flags:
        print(json.dumps(editor_schema.settings(runs[0][1].settings.model.family), indent=2))
    elif JSON.flag in command_line.flags:
        by_stage = {
            stage.name: _as_json(resolved, command_line.argument) for stage, resolved in runs
        }
        print(json.dumps(by_stage, indent=2))
    else:
        for number, (stage, resolved) in enumerate(runs):
            print("\n" * bool(number) + stages.title(stage), end="\n\n")
            _print(resolved, command_line.argument)
    return 0


def _resolved(command_line: CommandLine) -> Resolved:
    args, errors = selection.with_weights(command_line.args)
    diagnostics = [*command_line.diagnostics, *errors]
    try:
        here = Described(machine.detect_machine())
        is_asked = command_line.argument == auto.NAME
        decision = auto.decide_engine(args, command_line.out, here, always=is_asked)
        resolved = resolve_next_start(decision.resolved, decision.resume)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if diagnostics:
        raise SettingsError(diagnostics)
    return resolved


def _as_json(resolved: Resolved, key: str | None) -> dict[str, Any]:
    known = setting_infos(resolved.settings.model.family)
    if key is not None and key in known:
        facts = _facts(known[key], resolved.values[key])
        return {key: facts | ({"others": _others(resolved)} if key == auto.NAME else {})}
    return render.origins_as_json(_section(resolved, key))


def _print(resolved: Resolved, key: str | None) -> None:
    known = setting_infos(resolved.settings.model.family)
    if key is not None and key in known:
        _print_key(known[key], resolved.values[key])
        for line in _others(resolved) if key == auto.NAME else ():
            print(printable(f"  {'planned':<10} {line}"))
    else:
        print(printable(render.render_tree(_section(resolved, key), history=True)), end="")


def _section(resolved: Resolved, key: str | None) -> dict[str, Setting]:
    """All settings, or those of one section. Raises SettingsError if it does not exist."""
    if key is None:
        return dict(resolved.values)
    section = {name: value for name, value in resolved.values.items() if name.startswith(f"{key}.")}
    if not section:
        from launcher.config.foreign_words import all_words_for  # for a word that is not ours
        from launcher.config.value_errors import nearest_key

        sections = {name.rpartition(".")[0] for name in resolved.values} - {""}
        words = all_words_for(key, resolved.settings.model.family)
        meant = next((word.here for word in words if word.here), key)
        suggestion = nearest_key(meant, [*resolved.values, *sections])
        raise SettingsError.of(
            f"unknown setting '{key}'",
            key=key,
            where=f"command line: explain {key}",
            allowed=listed(list(resolved.values), "explain"),
            did_you_mean=suggestion,
            fix=suggestion and f"{PROGRAM} explain {suggestion}",
        )
    return section


def _others(resolved: Resolved) -> list[str]:
    """What each engine would need, if engine auto chose among them."""
    return [] if resolved.chosen is None else list(resolved.chosen.others)


def _print_key(leaf: SettingInfo, value: Setting) -> None:
    print(printable(f"{leaf.key} = {plain(value.value)}"))
    if leaf.description:
        print(f"  {leaf.description}")
    rows: list[tuple[str, str | None]] = [("where", render.describe_origin(value.origin))]
    rows += [("replaced", line) for line in render.describe_overridden(value)]
    rows += [("allowed", allowed(leaf)), ("unit", leaf.unit), ("built-in", plain(leaf.default))]
    for name, text in rows:
        if text is not None:
            print(printable(f"  {name:<10} {text}"))


def _facts(leaf: SettingInfo, value: Setting) -> dict[str, Any]:
    return {
        **render.origins_as_json({leaf.key: value})[leaf.key],
        "description": leaf.description,
        "type": leaf.type,
        "allowed": leaf.allowed,
        "range": leaf.range,
        "unit": leaf.unit,
        "built_in": leaf.default,
    }
