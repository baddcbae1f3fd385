"""Tells what is in a file or folder of data: format, counts, splits and their overlap, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from launcher import exit_codes, machine
from launcher.cli import Request
from launcher.data import findings, folder, page
from launcher.data.findings import Findings
from launcher.data.formats import recognise
from launcher.messages import PROGRAM, SettingsError, counted
from launcher.options import JSON
from launcher.settings.resolve import resolve
from launcher.settings.resolved import Resolved, Words
from launcher.settings.schema import config_of
from models.catalog import is_own, parted
from training.records.plain_json import encode

_LABEL = 18


def main(request: Request) -> int:
    """Look, tell, and write the page; the exit code. Raises SettingsError."""
    if request.faults or request.operand is None:
        raise SettingsError(request.faults)
    path, out = request.operand, request.out or folder.DEFAULT
    place = f"the command line: data check {path}"
    folder.check(out, f"--out {out}" if request.out else "no --out was given")
    family, resolved = None, None
    if request.words.model is not None:  # a model that is not there is told as for a run
        resolved = _resolved(request.words, path)
        family = resolved.settings.model.family
    found = recognise(path, family, place)
    if resolved is None or not parted(request.words.model or "")[1]:
        resolved = _resolved(replace(request.words, model=_smallest(found.family)), path)
    told = findings.look(path, found.format, resolved)
    written = folder.write(told, out)
    if JSON.flag in request.flags:
        print(encode(_as_json(told, written), indent=2))
    else:
        print("\n".join(_lines(told, written)))
    return exit_codes.FAULT if told.shared_groups else exit_codes.DONE


def _resolved(words: Words, path: str) -> Resolved:
    """The settings of a run on the data. Raises SettingsError."""
    options = {**words.options, "data.path": ("data check", path)}
    return resolve(replace(words, options=options), machine.look(), world_size=1)


def _smallest(family: str) -> str:
    """The model by its smallest size: what is told of data hardly depends on it."""
    sizes = config_of(family).SIZES
    return f"{family}:{next(iter(sizes))}" if sizes else family


def _lines(found: Findings, written: Sequence[Path]) -> Iterator[str]:
    is_file = not found.path.startswith("embedded:")
    kind = found.format or ("what your own task reads" if is_file else "embedded data")
    yield f"{found.path}: {kind}"
    shapes = [(f"a batch, {name}", text) for name, text in page.rows(found.sample)]
    told = [("read by", found.model), *page.rows(found.facts), ("overlap", page.overlap(found))]
    for name, text in (*told, *shapes):
        yield f"  {name:<{_LABEL}} {text}"
    pictures = f" and {counted(len(written) - 1, 'picture')}" if written[1:] else ""
    yield f"wrote {written[0]}{pictures}"
    if not is_own(found.model):
        family = found.model.partition(":")[0]
        yield f"train on it:  {PROGRAM} --model {family} --data {found.path}"


def _as_json(found: Findings, written: Sequence[Path]) -> dict[str, object]:
    return {
        "path": found.path,
        "model": found.model,
        "format": found.format,
        "facts": found.facts,
        "shared_groups": found.shared_groups,
        "sample": found.sample,
        "pictures": [{"name": one.name, "caption": one.caption} for one in found.pictures],
        "files": [str(file) for file in written],
    }
