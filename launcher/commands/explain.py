"""Shows each setting: its value, where that comes from, what it replaced, and what it means."""

from __future__ import annotations

import json
from typing import Any

from launcher.base.diagnostics import (
    PROGRAM,
    Diagnostic,
    SettingsError,
    listed,
    nearest_match,
    plain,
)
from launcher.config import editor_schema, machine, render
from launcher.config.command_line import CommandLine
from launcher.config.errors import allowed
from launcher.config.options import JSON, SCHEMA
from launcher.config.provenance import Resolved, Setting
from launcher.config.schema import SettingInfo, setting_infos
from launcher.resume.decide import decide
from launcher.run.experience import resolve_next_start
from launcher.stages import pipeline, selection, summary
from launcher.stages.pipeline import Pipeline


def main(command_line: CommandLine) -> int:
    """Print the tree, or one key of it; of each stage there is. Raises SettingsError."""
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
    """Each stage's settings; for machines by the name of the stage."""
    runs = [(link, begun.resolved) for link, begun in stages.left]
    if SCHEMA.flag in command_line.flags:
        print(json.dumps(editor_schema.settings(runs[0][1].settings.model.family), indent=2))
    elif JSON.flag in command_line.flags:
        told = {link.name: _as_json(resolved, command_line.argument) for link, resolved in runs}
        print(json.dumps(told, indent=2))
    else:
        for number, (link, resolved) in enumerate(runs):
            print("\n" * bool(number) + summary.title(stages, link), end="\n\n")
            _print(resolved, command_line.argument)
    return 0


def _resolved(command_line: CommandLine) -> Resolved:
    words, wrong = selection.with_weights(command_line.args)
    diagnostics = [*command_line.diagnostics, *wrong]
    try:
        decision = decide(words, command_line.out, machine.detect_machine())
        resolved = resolve_next_start(decision.resolved, decision.resume)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from None
    if diagnostics:
        raise SettingsError(diagnostics)
    return resolved


def _as_json(resolved: Resolved, word: str | None) -> dict[str, Any]:
    known = setting_infos(resolved.settings.model.family)
    if word is not None and word in known:
        return {word: _facts(known[word], resolved.values[word])}
    return render.origins_as_json(_section(resolved, word))


def _print(resolved: Resolved, word: str | None) -> None:
    known = setting_infos(resolved.settings.model.family)
    if word is not None and word in known:
        _print_key(known[word], resolved.values[word])
    else:
        print(render.render_tree(_section(resolved, word), history=True), end="")


def _section(resolved: Resolved, word: str | None) -> dict[str, Setting]:
    """All settings, or those of the section `word`. Raises SettingsError where there is none."""
    if word is None:
        return dict(resolved.values)
    found = {key: value for key, value in resolved.values.items() if key.startswith(f"{word}.")}
    if not found:
        sections = {key.rpartition(".")[0] for key in resolved.values} - {""}
        near = nearest_match(word, [*resolved.values, *sections])
        what = Diagnostic(
            f"there is no setting '{word}'",
            key=word,
            where=f"the command line: explain {word}",
            allowed=listed(list(resolved.values), "explain"),
            did_you_mean=near,
            fix=near and f"{PROGRAM} explain {near}",
        )
        raise SettingsError([what])
    return found


def _print_key(leaf: SettingInfo, value: Setting) -> None:
    print(f"{leaf.key} = {plain(value.value)}")
    if leaf.description:
        print(f"  {leaf.description}")
    rows: list[tuple[str, str | None]] = [("where", render.describe_origin(value.origin))]
    rows += [("replaced", line) for line in render.describe_overridden(value)]
    rows += [("allowed", allowed(leaf)), ("unit", leaf.unit), ("built-in", plain(leaf.default))]
    for name, text in rows:
        if text is not None:
            print(f"  {name:<10} {text}")


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
