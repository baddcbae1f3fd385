"""What may change when a run goes on, what begins something anew, and what never changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from launcher.base.diagnostics import Diagnostic, nearest_match, plain
from launcher.config import errors, provenance, selection
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import STAGED_MODE, USER_LAYERS, ResetPart, Resolved, Setting
from launcher.config.schema import setting_infos

Rule = Literal["free", "never"] | ResetPart
"""free: it may change; a part: it may where that part begins anew; never: it is another run."""

PARTS: tuple[ResetPart, ...] = get_args(ResetPart)
ANEW: Mapping[str, str] = {
    "optimizer": "the optimizer's state and the average of the weights begin anew",
    "schedule": "the schedule of the learning rate begins anew",
    "data": "the order of the data begins anew",
}
RULES: Mapping[Rule, Sequence[str]] = {
    "free": (
        "device",
        "precision",
        "compile",
        "promise",
        "unread_settings",
        "engine",
        "memory",
        "loader",
        "feature_cache",
        "log",
        "limits",
        "track",
        "tracking",
        "continual",
        "download",
        "save",
        "stop",
        "model.folder",
        "model.recompute_regions",
        "eval.every",
        "eval.each_epoch",
        "eval.last",
        "train.micro_batch",
        "train.accumulation",
        "train.debug",
        "train.deterministic",
        "train.preview",
        "train.timing",
        "train.on_nonfinite",
    ),
    "optimizer": ("optim", "train.ema"),
    "schedule": ("schedule", "optim.lr", "train.epochs", "train.max_steps"),
    "data": ("data", "train.seed", "train.global_batch", "eval.share"),
    "never": ("model", "mode", "limits.profile", "stages", "eval.metric"),
}
"""Settings and whole sections of them; of two that fit, the longer counts."""
LENGTH = ("train.epochs", "train.max_steps")


@dataclass(frozen=True)
class Difference:
    """A setting that is not as it was when the checkpoint was made."""

    key: str
    old: Any
    new: Any
    rule: Rule

    @property
    def line(self) -> str:
        """`engine.name ddp → zero2`."""
        return f"{self.key} {plain(self.old)} → {plain(self.new)}"


def rule_of(key: str) -> Rule:
    """What a change of the setting `key` means. Raises KeyError where no rule fits."""
    fitting = [
        (len(start), rule)
        for rule, starts in RULES.items()
        for start in starts
        if key == start or key.startswith(f"{start}.")
    ]
    if not fitting:
        raise KeyError(f"no rule says what a change of {key} means to a run that goes on")
    return max(fitting)[1]


def differences(before: Mapping[str, Any], resolved: Resolved) -> list[Difference]:
    """What is not as it was `before`, in the order of declaration.

    A setting that there was not before counts only where a person set it.
    """
    found = []
    for key, leaf in setting_infos(resolved.settings.model.family).items():
        value = resolved.values[key]
        if key not in before and not provenance.is_set_by_user(value):
            continue
        old = before.get(key, leaf.default)
        if value.value != old:
            found.append(Difference(key, old, value.value, _rule(key, before, resolved)))
    return found


def diagnostics(
    found: Sequence[Difference], reset: Collection[str], resolved: Resolved, told: str
) -> list[Diagnostic]:
    """The changes that cannot be; `told` says which run it is, and until which step it went."""
    return [
        _refused(one, resolved, told)
        for one in found
        if one.rule != "free" and one.rule not in reset
    ]


def unknown_parts(reset: Sequence[str]) -> Iterator[Diagnostic]:
    """A fault for each word behind --reset that is none of its parts."""
    for word in reset:
        if word not in PARTS:
            near = nearest_match(word, PARTS)
            yield Diagnostic(
                f"--reset '{word}' is not known",
                value=word,
                where=f"--reset {word}",
                allowed=", ".join(PARTS),
                did_you_mean=near,
                fix=near and f"--reset {near}",
            )


def length_is_free(settings: Mapping[str, Any]) -> bool:
    """Whether the learning rate is the same at every step, however long the run is."""
    lengths = (settings.get("schedule.warmup"), settings.get("schedule.warmup_cap"))
    shares = [one for one in lengths if isinstance(one, str) and "%" in one]
    return settings.get("schedule.name") == "constant" and not shares


def told(folder: Path, step: int | None) -> str:
    """The run, and until where its settings held, as messages name it."""
    return f"{folder} until step {step}" if step is not None else f"{folder}"


def _rule(key: str, before: Mapping[str, Any], resolved: Resolved) -> Rule:
    if key in LENGTH:
        now = {other: value.value for other, value in resolved.values.items()}
        if length_is_free(before) and length_is_free(now):
            return "free"
    if key in _first_weights(resolved):
        return "free"  # they lie in the checkpoint now
    return rule_of(key)


def _first_weights(resolved: Resolved) -> set[str | None]:
    """The settings that name what stages begin with, in mode staged."""
    if resolved.values["mode"].value != STAGED_MODE:
        return set()
    return {stage.loads for stage in selection.declared_stages(resolved.settings.model.family)}


def _refused(one: Difference, resolved: Resolved, run: str) -> Diagnostic:
    allowed = plain(one.old)
    if one.rule == "never":
        allowed += "; or a new run, without --resume"
        fix = None
    else:
        allowed += f"; or another value with  --reset {one.rule}; or a new run, without --resume"
        fix = f"--reset {one.rule}  too: {ANEW[one.rule]}"
    return Diagnostic(
        f"{errors.display_name(one.key)} {plain(one.new)} is not {plain(one.old)}, as in {run}",
        key=one.key,
        value=one.new,
        where=_place(one.key, resolved.values),
        allowed=allowed,
        fix=fix,
    )


def _place(key: str, values: Mapping[str, Setting]) -> str:
    """Where the value was written; of a solved batch, where what it was solved from was."""
    origin = values[key].origin
    if key != GLOBAL or origin.layer in USER_LAYERS:
        return errors.where(key, origin)
    parts = [part for part in (MICRO, ACCUMULATION) if _typed(values[part])]
    return "; ".join(errors.where(part, _typed(values[part])) for part in parts) or origin.where


def _typed(value: Setting) -> Any:
    """The newest origin of a value that is a person's; None: a person never set it."""
    layers = provenance.all_values(value)
    return next((origin for _, origin in layers if origin.layer in USER_LAYERS), None)
