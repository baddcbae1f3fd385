"""A chain of stages, decided as a whole before the first of them begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.cli.options import FROM, STAGE
from launcher.config import cli_args as typed
from launcher.config import staging
from launcher.config.entries import find as node_of
from launcher.config.nodes import plain
from launcher.config.resolved import STAGED, CliArgs, Filled, Resolved
from launcher.config.selection import choose
from launcher.config.settings_file import read
from launcher.config.validate import irrelevant
from launcher.resume import find as resume
from launcher.resume.resume_point import Resume
from launcher.run import prepare as start
from launcher.run.prepare import Start
from launcher.run_folder import run_folder
from launcher.stages import record, selection
from launcher.stages import selection as asked
from launcher.stages.record import Record
from models.catalog import Stage


@dataclass(frozen=True)
class Link:
    """One stage of a chain."""

    name: str
    sentence: str
    folder: Path
    start: Start | None
    """Its run; None: it was completed before."""


@dataclass(frozen=True)
class Chain:
    """Stages that are to be trained one after the other."""

    folder: Path
    links: Sequence[Link]
    goes_on: bool = False
    """It was begun before: its folder is there."""
    line: str | None = None
    """What is told of that; None: nobody asked to go on."""

    @property
    def record(self) -> Record:
        """Its stages and their folders."""
        return Record(self.folder, {link.name: link.folder for link in self.links})

    @property
    def left(self) -> list[tuple[Link, Start]]:
        """What is still to be trained."""
        return [(link, link.start) for link in self.links if link.start is not None]

    @property
    def warnings(self) -> list[Diagnostic]:
        """Those of its stages, each once; none of a setting that counts in another stage."""
        runs = [begun.resolved for _, begun in self.left]
        found: list[Diagnostic] = []
        for run in runs:
            for fault in run.warnings:
                if not _counts_elsewhere(fault.key, run, runs):
                    _add(found, fault)
        return found


Prepare = Callable[[CliArgs, Path | None, list[Diagnostic]], Start]
"""Decides one run, as `start.prepare` does here."""


def prepare(words: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic]) -> Start | Chain:
    """Decide everything of one run, or of all runs of a chain of stages; start nothing.

    Reads settings files, and JSON of runs that go on. Raises SettingsError with `faults` and all
    others that can be found.
    """
    if (chain := of_stages(words, out, diagnostics)) is not None:
        return chain
    words, wrong = selection.with_weights(words)
    return start.prepare(words, out, [*diagnostics, *wrong])


def of_stages(
    words: CliArgs,
    out: Path | None,
    diagnostics: Sequence[Diagnostic],
    one: Prepare = start.prepare,
) -> Chain | None:
    """As `prepare`; None: it is one run, of which nothing is decided. `one` decides a stage."""
    before = find(words, out)
    if before is not None:
        return _going_on(before, words, out, diagnostics, one)
    stages = selection.stages(words) if words.resume in (None, resume.AUTO) else ()
    return _new(stages, words, out, diagnostics, one) if stages else None


def _new(
    stages: Sequence[Stage],
    words: CliArgs,
    out: Path | None,
    diagnostics: Sequence[Diagnostic],
    one: Prepare,
) -> Chain:
    words, wrong = selection.from_of(words, stages[0])
    found = [*diagnostics, *wrong]
    line = None
    if words.resume is not None:
        line = f"{words.resume_option} {words.resume}: no run of these stages to go on with"
        words = replace(words, resume=None)
    folder = out or run_folder.PARENT / STAGED
    links: list[Link] = []
    for number, stage in enumerate(stages, start=1):
        told = _told(stage, number, words, links, len(stages))
        made = _prepared(told, found, one)
        if out is None and number == 1 and made is not None:
            folder = run_folder.free(made.name)
        inner = folder / record.child(number, stage.name)
        if made is not None:
            made = replace(made, out=inner, resume=Resume(inner), apart=True)
        links.append(Link(stage.name, stage.sentence, inner, made))
    found += _wrong_folder(folder, out)
    if found:
        raise SettingsError(found)
    return Chain(folder, links, line=line)


def _told(stage: Stage, number: int, words: CliArgs, links: Sequence[Link], count: int) -> CliArgs:
    """The words of one stage of a new chain."""
    sets = [text for text in words.sets if text.partition("=")[0].strip() != staging.KEY]
    turn = Filled(staging.KEY, [stage.name], STAGE.flag, f"stage {number} of {count}")
    given = words.filled if number == 1 else ()
    return replace(words, sets=sets, filled=[*given, turn, *_weights(stage, links)])


def _weights(stage: Stage, links: Sequence[Link]) -> list[Filled]:
    """That a stage begins with the weights of the last before it whose weights it takes."""
    before = [link for link in links if link.name in stage.of]
    if stage.loads is None or not before:
        return []
    place = f"stage {before[-1].name} of this run"
    return [Filled(stage.loads, str(before[-1].folder), FROM.flag, place)]


def _prepared(words: CliArgs, found: list[Diagnostic], one: Prepare) -> Start | None:
    """One stage; None: something is wrong with it, which `found` is given, each fault once."""
    try:
        made = one(words, None, [])
    except SettingsError as error:
        for fault in error.diagnostics:
            _add(found, fault)
        return None
    if made.place is not None:
        _add(found, _not_ours(made.place.source, words))
    return made


def _counts_elsewhere(key: str | None, run: Resolved, runs: Sequence[Resolved]) -> bool:
    """Whether a setting that means nothing in one run means something in another."""
    if key is None or key not in run.values or irrelevant(run.values, key) is None:
        return False
    return any(irrelevant(other.values, key) is None for other in runs)


def _add(found: list[Diagnostic], fault: Diagnostic) -> None:
    if (fault.message, fault.where) not in [(one.message, one.where) for one in found]:
        found.append(fault)


def _not_ours(source: str, words: CliArgs) -> Diagnostic:
    """Of processes that others have started none can end for the next stage."""
    place = f"mode {STAGED}" if words.resume is None else f"resume {words.resume}"
    return Diagnostic(
        f"each stage is trained in processes of its own, and {source} has started these",
        where=place,
        allowed=f"one stage at a time under {source}",
        fix=f"write  {STAGE.flag} NAME , for a later stage with  {FROM.flag} RUN ; "
        f"or  resume  with the folder of one stage",
    )


def _wrong_folder(folder: Path, out: Path | None) -> Sequence[Diagnostic]:
    try:
        run_folder.check(folder, f"--out {folder}" if out else "no --out was given")
    except SettingsError as error:
        return error.diagnostics
    return ()


def _going_on(
    before: Record,
    words: CliArgs,
    out: Path | None,
    diagnostics: Sequence[Diagnostic],
    one: Prepare,
) -> Chain:
    found = [*diagnostics, *_misplaced(before, words, out)]
    declared = stages(before)
    links: list[Link] = []
    for name, folder in before.stages.items():
        stage = declared.get(name, Stage(name, ""))
        made = None
        if not record.is_completed(folder):
            filled = _weights(stage, links)
            told = replace(words, resume=str(folder), weights=None, filled=filled)
            has_begun = resume.newest_step(folder) is not None
            made = _prepared(told if has_begun else replace(told, reset=()), found, one)
            if made is not None:
                line = made.line if (folder / run_folder.METRICS).exists() else None
                made = replace(made, apart=True, line=line)
        links.append(Link(name, stage.sentence, folder, made))
    if found:
        raise SettingsError(found)
    left = [link.name for link in links if link.start is not None]
    line = f"going on with {before.folder}: {', '.join(left)}" if left else _nothing_left(before)
    return Chain(before.folder, links, True, line)


def _misplaced(before: Record, words: CliArgs, out: Path | None) -> Iterator[Diagnostic]:
    """Words that mean nothing to a chain which goes on."""
    typed: list[tuple[str, Any]] = [(one.option, one.place) for one in words.filled]
    if words.weights is not None:
        typed.append((FROM.flag, f"{FROM.flag} {words.weights}"))
    if out is not None and not resume.is_same(out, before.folder):
        typed.append(("--out", f"--out {out}"))
    folders = ", ".join(map(str, before.stages.values()))
    for option, place in typed:
        yield Diagnostic(
            f"{option} with the stages of {before.folder}, which go on as they began",
            key=option,
            where=place,
            allowed=f"without {option}; or  resume  with the folder of one stage: {folders}",
        )


def _nothing_left(before: Record) -> str:
    last = list(before.stages.values())[-1]
    return (
        f"nothing is left to do: all stages of {before.folder} were completed; "
        f"to train one longer: {PROGRAM} resume {last} --epochs N --reset schedule"
    )


def find(words: CliArgs, out: Path | None) -> Record | None:
    """The chain that goes on; None: there is none, or what goes on is no chain.

    With `auto` that in `out`, or the newest of the same model and stages below runs/ that was not
    completed. Reads the disk.
    """
    if words.resume is None:
        return None
    if words.resume != resume.AUTO:
        return record.load(Path(words.resume))
    if out is not None:
        return record.load(out)
    names = [one.name for one in asked.stages(words)]
    return _latest(words, names) if names else None


def stages(chain: Record) -> dict[str, Stage]:
    """What the family of a chain declares of its stages, by name. Reads the disk."""
    try:
        family = node_of(read(_first(chain)), "model.family")
        declared = staging.declared(family.value) if family is not None else ()
    except SettingsError:  # such as a task of one's own that has moved; its run tells of it
        return {}
    return {one.name: one for one in declared}


def _first(chain: Record) -> Path:
    return next(iter(chain.stages.values())) / run_folder.SETTINGS


def _latest(words: CliArgs, names: list[str]) -> Record | None:
    choice = choose(words, typed.read_files(words))
    found = run_folder.PARENT.glob(f"*/{run_folder.STAGES}")
    times = sorted(((path.stat().st_mtime_ns, path.parent) for path in found), reverse=True)
    for _, folder in times:
        chain = record.load(folder)
        if chain is None or list(chain.stages) != names:
            continue
        if all(map(record.is_completed, chain.stages.values())):
            continue
        if _model(chain) == [choice.family, choice.size]:
            return chain
    return None


def _model(chain: Record) -> list[object]:
    """The family and size of a chain."""
    try:
        root = read(_first(chain))
    except SettingsError:
        return []
    nodes = [node_of(root, key) for key in ("model.family", "model.size")]
    return [node and plain(node) for node in nodes]
