"""Which stages a person asks for, and the settings that --from comes to."""

from __future__ import annotations

from dataclasses import replace

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.cli.options import FROM
from launcher.config import cli_args as typed
from launcher.config import staging
from launcher.config.resolved import STAGED, CliArgs, Filled
from launcher.config.selection import choose
from launcher.resume.find import AUTO
from launcher.stages import weights
from models.catalog import Stage


def stages(words: CliArgs) -> tuple[Stage, ...]:
    """The stages that are trained one after the other; none: it is an ordinary run.

    One stage alone is such a run, and so is what is wrong: that is told where settings are
    resolved. Reads settings files.
    """
    choice = choose(words, typed.read_files(words))
    if choice.mode != STAGED or choice.diagnostics:
        return ()
    found = staging.chosen(choice.stages, staging.declared(choice.family))
    is_legal = not choice.stages or [one.name for one in found] == list(choice.stages)
    return found if is_legal and len(found) > 1 else ()


def with_weights(words: CliArgs) -> tuple[CliArgs, list[Diagnostic]]:
    """The words of an ordinary run, with --from as the setting it stands for; and what is wrong.

    Reads settings files, and looks at names.
    """
    if words.weights is None:
        return words, []
    choice = choose(words, typed.read_files(words))
    found = {one.name: one for one in staging.declared(choice.family)}.get(choice.stage or "")
    return from_of(words, found)


def from_of(words: CliArgs, stage: Stage | None) -> tuple[CliArgs, list[Diagnostic]]:
    """The words with --from as a setting of `stage`, and what is wrong with it."""
    if words.weights is None:
        return words, []
    place = f"{FROM.flag} {words.weights}"
    rest = replace(words, weights=None)
    if words.resume not in (None, AUTO):
        what = f"{place}: a run that goes on has its weights from its own checkpoint"
        return rest, [_fault(what, place, f"{FROM.flag}  with a new run", "leave it out")]
    if stage is None:
        what = f"{place} names the first weights of a stage, and no stage is trained here"
        return rest, [_fault(what, place, "with  --mode staged --stage NAME")]
    if stage.loads is None:
        what = f"{place}: stage {stage.name} begins with random weights, and loads none"
        return rest, [_fault(what, place, "with a later stage", "leave it out")]
    value, diagnostics = words.weights, []
    try:
        value = str(weights.find(words.weights, stage))
    except SettingsError as error:
        diagnostics = list(error.diagnostics)
    filled = Filled(stage.loads, value, FROM.flag, place)
    return replace(rest, filled=[*words.filled, filled]), diagnostics


def _fault(what: str, place: str, allowed: str, fix: str | None = None) -> Diagnostic:
    return Diagnostic(what, key=FROM.flag, where=place, allowed=allowed, fix=fix)
