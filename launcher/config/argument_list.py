"""The command line of a run with given arguments, for another process or for the user to type."""

from __future__ import annotations

from gearshift.launcher.config.command_line import BY_FLAG
from gearshift.launcher.config.provenance import CliArgs


def arguments(args: CliArgs) -> list[str]:
    """The options of a new run with these arguments."""
    pairs = [
        ("--model", args.model),
        ("--mode", args.mode),
        ("--engine", args.engine),
        ("--from", args.weights),
    ]
    for setting in args.filled.values():
        pairs += [("--stage", stage) for stage in setting.value]
    pairs += [("--config", str(path)) for path in args.configs]
    for flag, *texts in args.options.values():
        pairs += [(flag, text) for text in texts]
    pairs += [("--set", text) for text in args.sets]
    words = []
    for flag, text in pairs:
        if text is None:
            continue
        if text.startswith("-"):
            words.append(f"{flag}={text}")
        elif BY_FLAG[flag].metavar is None:
            words.append(flag)
        else:
            words += [flag, text]
    return words
