"""Compatibility: which settings may change when a run is resumed, and what --reset each needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, nearest_match, plain
from launcher.config import errors, paths, selection
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import STAGED_MODE, USER_LAYERS, ResetPart, Resolved, Setting
from launcher.config.schema import setting_infos

Rule = Literal["free", "never"] | ResetPart
"""free: may change; a part: needs --reset PART; never: needs a new run."""

PARTS: tuple[ResetPart, ...] = get_args(ResetPart)
RESET_EFFECTS: Mapping[str, str] = {
    "optimizer": "optimizer state and EMA are reinitialized",
    "schedule": "the learning-rate schedule restarts",
    "data": "the data order restarts",
}
RULES: Mapping[Rule, Sequence[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)
"""Settings and sections; the longest matching key applies."""
LENGTH = ("train.epochs", "train.max_steps")


@dataclass(frozen=True)
class SettingChange:
    """A setting that differs from that of the checkpoint."""

    key: str
    old: Any
    new: Any
    rule: Rule

    @property
    def line(self) -> str:
        """`engine.name ddp → zero2`."""
        return f"{self.key} {plain(self.old)} → {plain(self.new)}"


def rule_of(key: str) -> Rule:
    """The rule for a change of the setting `key`. Raises KeyError without a rule."""
    fitting = [
        (len(start), rule)
        for rule, starts in RULES.items()
        for start in starts
        if key == start or key.startswith(f"{start}.")
    ]
    if not fitting:
        raise KeyError(f"no rule for a change of {key} in a resumed run")
    return max(fitting)[1]


def differences(
    before: Mapping[str, Any], resolved: Resolved, checked: Collection[str] = ()
) -> list[SettingChange]:
    """The settings that differ from `before`, in the order of declaration.

    A setting missing in `before` counts only if the user set it; another path of the same file or
    folder is no difference. Those in `checked` may change: the ranks compare their new values with
    the checkpoint. Reads the disk.
    """
    changes = []
    for key, leaf in setting_infos(resolved.settings.model.family).items():
        value = resolved.values[key]
        if key == "train.epochs" and value.value is None and resolved.values[key].replaced:
            continue  # follows from train.max_steps
        if key not in before and not value.is_set_by_user:
            continue
        old = before.get(key, leaf.default)
        if value.value != old and not paths.is_same(key, old, value.value, resolved.values):
            rule = "free" if key in checked else _rule(key, before, resolved)
            changes.append(SettingChange(key, old, value.value, rule))
    return changes


def rounding_notes(changes: Sequence[SettingChange], resolved: Resolved) -> list[str]:
    """A note if weights of 16 bits replace autocast over fp32 weights, or the reverse."""
    for change in changes:
        before, after = (ENGINES.get(name) for name in (change.old, change.new))
        if change.key == "engine.name" and before and after:
            is_16_bit = resolved.settings.precision in ("bf16", "fp16", "fp8")
            if is_16_bit and before.shards_parameters != after.shards_parameters:
                precision = resolved.settings.precision
                return [
                    f"{after.name} rounds to {precision} at other operations than {before.name}"
                ]
    return []


def diagnostics(
    changes: Sequence[SettingChange], reset: Collection[str], resolved: Resolved, run: str
) -> list[Diagnostic]:
    """Errors for changes without their --reset; `run` is the text of `describe_run`."""
    return [
        _incompatible(change, resolved, run)
        for change in changes
        if change.rule != "free" and change.rule not in reset
    ]


def unknown_parts(reset: Sequence[str]) -> Iterator[Diagnostic]:
    """An error for each unknown argument of --reset."""
    for part in reset:
        if part not in PARTS:
            nearest = nearest_match(part, PARTS)
            yield Diagnostic(
                f"unknown --reset '{part}'",
                value=part,
                where=f"--reset {part}",
                allowed=", ".join(PARTS),
                did_you_mean=nearest,
                fix=nearest and f"--reset {nearest}",
            )


def length_is_free(settings: Mapping[str, Any]) -> bool:
    """Whether the learning rate of a step does not depend on the length of the run."""
    lengths = (settings.get("schedule.warmup"), settings.get("schedule.warmup_cap"))
    has_share = any(isinstance(length, str) and "%" in length for length in lengths)
    return settings.get("schedule.name") == "constant" and not has_share


def describe_run(folder: Path, step: int | None) -> str:
    """The run for messages, and the step until which its settings applied."""
    return f"{folder} until step {step}" if step is not None else f"{folder}"


def _rule(key: str, before: Mapping[str, Any], resolved: Resolved) -> Rule:
    if key in LENGTH:
        now = {other: value.value for other, value in resolved.values.items()}
        if length_is_free(before) and length_is_free(now):
            return "free"
    if key in _first_weights(resolved):
        return "free"  # the checkpoint contains them
    rule = rule_of(key)
    if rule == "data" and paths.has_moved(
        key, before.get(key), resolved.values[key].value, resolved.values
    ):
        return "free"  # the ranks compare the content with that of the checkpoint
    return rule


def _first_weights(resolved: Resolved) -> set[str | None]:
    """The settings with the initial weights of stages, in mode staged."""
    if resolved.values["mode"].value != STAGED_MODE:
        return set()
    return {stage.loads for stage in selection.declared_stages(resolved.settings.model.family)}


def _incompatible(difference: SettingChange, resolved: Resolved, run: str) -> Diagnostic:
    allowed = plain(difference.old)
    fix = None
    if difference.rule != "never":
        allowed += f"; or another value with  --reset {difference.rule}"
        fix = f"--reset {difference.rule}  ({RESET_EFFECTS[difference.rule]})"
    allowed += "; or a new run, without --resume"
    name, new = errors.display_name(difference.key), plain(difference.new)
    return Diagnostic(
        f"{name} {new} differs from {plain(difference.old)}, used by {run}",
        key=difference.key,
        value=difference.new,
        where=_where(difference.key, resolved.values),
        allowed=allowed,
        fix=fix,
    )


def _where(key: str, values: Mapping[str, Setting]) -> str:
    """Where the value was set; for a computed global batch, where its factors were."""
    origin = values[key].origin
    if key != GLOBAL or origin.layer in USER_LAYERS:
        return errors.where(key, origin)
    parts = [part for part in (MICRO, ACCUMULATION) if _user_origin(values[part])]
    return (
        "; ".join(errors.where(part, _user_origin(values[part])) for part in parts) or origin.where
    )


def _user_origin(value: Setting) -> Any:
    """The newest origin of a value that the user set; None: the user never set it."""
    layers = value.all_values
    return next((origin for _, origin in layers if origin.layer in USER_LAYERS), None)
