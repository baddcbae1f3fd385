"""Shows each setting: its value, where that comes from, what it replaced, and what it means."""

from __future__ import annotations

import json
from typing import Any

from launcher import editor_schema, machine, messages
from launcher.cli import Request
from launcher.going_on.decide import decide
from launcher.messages import PROGRAM, Fault, SettingsError, plain
from launcher.options import JSON, SCHEMA
from launcher.settings import settings_text, tree_text
from launcher.settings.leaves import Leaf, leaves
from launcher.settings.refusals import legal
from launcher.settings.resolved import Resolved, Value


def main(request: Request) -> int:
    """Print the tree, or one key of it; the exit code. Raises SettingsError."""
    resolved = _resolved(request)
    family = resolved.settings.model.family
    for_machines = JSON.flag in request.flags
    if SCHEMA.flag in request.flags:
        print(json.dumps(editor_schema.settings(family), indent=2))
    elif request.word in leaves(family):
        _print_key(leaves(family)[request.word], resolved.values[request.word], for_machines)
    else:
        values = _section(resolved, request.word)
        if for_machines:
            print(json.dumps(settings_text.origins(values), indent=2))
        else:
            print(tree_text.tree(values, history=True), end="")
    return 0


def _resolved(request: Request) -> Resolved:
    faults = list(request.faults)
    try:
        resolved = decide(request.words, request.out, machine.look()).resolved
    except SettingsError as error:
        raise SettingsError([*faults, *error.faults]) from None
    if faults:
        raise SettingsError(faults)
    return resolved


def _section(resolved: Resolved, word: str | None) -> dict[str, Value]:
    """All settings, or those of the section `word`. Raises SettingsError where there is none."""
    if word is None:
        return dict(resolved.values)
    found = {key: value for key, value in resolved.values.items() if key.startswith(f"{word}.")}
    if not found:
        sections = {key.rpartition(".")[0] for key in resolved.values} - {""}
        near = messages.nearest(word, [*resolved.values, *sections])
        what = Fault(
            f"there is no setting '{word}'",
            key=word,
            place=f"the command line: explain {word}",
            legal=messages.listed(list(resolved.values), "explain"),
            nearest=near,
            mend=near and f"write  {PROGRAM} explain {near}",
        )
        raise SettingsError([what])
    return found


def _print_key(leaf: Leaf, value: Value, for_machines: bool) -> None:
    if for_machines:
        print(json.dumps({leaf.key: _facts(leaf, value)}, indent=2))
        return
    print(f"{leaf.key} = {plain(value.value)}")
    if leaf.description:
        print(f"  {leaf.description}")
    rows: list[tuple[str, str | None]] = [("from", tree_text.told(value.origin))]
    rows += [("replaced", line) for line in tree_text.history_of(value)]
    rows += [("legal", legal(leaf)), ("unit", leaf.unit), ("built-in", plain(leaf.default))]
    for name, text in rows:
        if text is not None:
            print(f"  {name:<10} {text}")


def _facts(leaf: Leaf, value: Value) -> dict[str, Any]:
    return {
        **settings_text.origins({leaf.key: value})[leaf.key],
        "description": leaf.description,
        "type": leaf.type,
        "legal": leaf.legal,
        "range": leaf.range,
        "unit": leaf.unit,
        "built_in": leaf.default,
    }
