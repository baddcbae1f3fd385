"""What reading the person's words gives: settings, where each came from, what was filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import Diagnostic

STAGED_MODE = "staged"
"""The mode that trains stages."""


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a layer's name, and the file and line or the option as typed."""

    layer: str
    """One of launcher.config.resolve.PRECEDENCE; or solved: from the arithmetic of the batch."""
    place: str
    """`mine.yaml:12`, `--engine zero2`, `ds_configs/modes/fast.yaml:4`, `built-in`."""
    how: str = ""
    """What a mode made of the default: `16 × 0.25`."""


@dataclass(frozen=True)
class Setting:
    """A resolved leaf: its value, where from, and what it replaced, newest first."""

    value: Any
    origin: Origin
    replaced: Sequence[tuple[Any, Origin]] = ()


@dataclass(frozen=True)
class ImpliedSetting:
    """A setting that follows from an option which names no setting, such as --from RUN."""

    key: str
    value: Any
    option: str
    place: str
    """The option as typed, or what else it follows from."""


@dataclass(frozen=True)
class CliArgs:
    """What a person typed, before any file is read. `options` are short options as typed."""

    model: str | None = None
    """FAMILY[:SIZE]"""
    mode: str | None = None
    mode_option: str = "--mode"
    """The option as typed, for messages: `--mode` or `--fast`."""
    engine: str | None = None
    configs: Sequence[Path] = ()
    sets: Sequence[str] = ()
    """Each KEY=VALUE as typed."""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Settings key -> (option, text), such as "optim.lr": ("--lr", "1e-3")."""
    resume: str | None = None
    """What to go on from: auto, a folder, or a step."""
    resume_option: str = "--resume"
    """As typed, for messages: `--resume`, or `resume` of the command."""
    reset: Sequence[str] = ()
    """What begins anew all the same, of launcher.resume.resume_point.Part."""
    filled: Sequence[ImpliedSetting] = ()
    """What follows from --stage and --from."""
    weights: str | None = None
    """What was typed behind --from: where the first weights of a stage come from."""


@dataclass(frozen=True)
class Batching:
    """The solved arithmetic: global_batch = micro_batch × accumulation × world_size."""

    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int


@dataclass(frozen=True)
class Resolved:
    """Everything a run is told. `settings` is a frozen pydantic model of settings/schema.py."""

    settings: Any
    values: Mapping[str, Setting]
    """Each leaf by its dotted key."""
    batching: Batching
    nproc: int
    promises: Mapping[str, Any]
    notes: Sequence[str]
    """What was filled in or adapted for this machine, a line each."""
    device: str
    """What `device` comes to on this machine: never auto."""
    warnings: Sequence[Diagnostic] = ()
    """What is legal, and most likely not meant."""
