"""The commands: what each one does, its options, and the module that runs it, from their table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from gearshift.launcher.config.command_line import BY_FLAG, OPTIONS, RUN, Command, Option
from gearshift.launcher.config.settings_file import read_rows
from gearshift.models.base import Sampling, SplitName
from gearshift.training.settings import TRACKER_FORMS

SPLITS: tuple[str, ...] = get_args(SplitName)
DEFAULT_SPLIT = "test"
_VALUES = {
    "splits": ", ".join(SPLITS),
    "split": DEFAULT_SPLIT,
    "max_tokens": Sampling.max_tokens,
    "seed": Sampling.seed,
    "trackers": TRACKER_FORMS,
}
"""What stands in braces in the table."""


def _command(
    name: str,
    sentence: str,
    module: str | None = None,
    options: Iterable[str | dict[str, Any]] = (),
    **fields: Any,
) -> Command:
    """The record of a row."""
    module = module or f"commands.{name.replace('-', '_')}"
    return Command(
        name,
        sentence,
        f"gearshift.launcher.{module}",
        tuple(_options(options)),
        **fields,
    )


def _options(entries: Iterable[str | dict[str, Any]]) -> Iterator[Option]:
    for entry in entries:
        if isinstance(entry, str):
            yield BY_FLAG[entry]
        elif "but" in entry:
            yield from (option for option in OPTIONS if option.flag not in entry["but"])
        else:
            yield Option(**{**entry, "sentence": entry["sentence"].format(**_VALUES)})


COMMANDS = {
    RUN.name: RUN,
    **{row["name"]: _command(**row) for row in read_rows("commands.yaml")},
}
ALIASES = {"train": RUN.name}
"""Other names of commands."""
