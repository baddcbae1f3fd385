"""Options and settings of other programs, and what is typed here instead of each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import OFF, ON, Diagnostic, counted, fold, plain
from launcher.config.model_lines import model_line, pretrained_folder, pretrained_line, typed_model
from launcher.config.options import OPTIONS
from launcher.config.presets import FOLDER
from launcher.config.provenance import Setting
from launcher.config.schema import PRETRAINED, setting_infos
from launcher.config.settings_file import node_value, read_settings_file
from models.catalog import FAMILIES

SEVERAL, OTHERS = "several", "others"
"""The files of what several originals have, and of other tools."""
REMOVE = "remove it: "
"""Begins the line of a word that nothing replaces."""
OF_FOLDER = f"--set {PRETRAINED}={{folder}}"
_FLAGS = {option.key: option.flag for option in OPTIONS if option.key is not None}
_KEY = re.compile(r"--set ([\w.]+)=")
_ENOUGH = 2
"""Words of one original alone that make a file one of its files."""
_VERY_CLOSE = 0.85
"""The similarity from which a typo of a word is that word; 1: the same."""


def _epochs(text: str) -> str:
    return counted(int(text), "epoch") if text.isdecimal() else text


def _percent(text: str) -> str:
    """A fraction of the run as a percentage."""
    return f"{float(text) * 100:g}%" if re.fullmatch(r"[\d.]+(e-?\d+)?", text) else text


_FORMS = {
    "epochs": _epochs,
    "percent": _percent,
    "parent": lambda text: str(Path(text).parent),
    "wandb": lambda text: [f"wandb:{text}"],
}


@dataclass(frozen=True)
class Word:
    """An option or setting of other programs under its names there, and its equivalent."""

    names: Sequence[str]
    """As written there; `optimizer.type` only in that section."""
    here: str | None = None
    """An option, or the key of a setting; None: no equivalent."""
    line: str | None = None
    """Instead of `here`: all that is typed, with {value}, and {folder} of a pretrained model."""
    remark: str = ""
    """For the page about the originals; without an equivalent, the reason, for messages too."""
    on: Any = None
    """The value of a switch that is given without a value, or as true."""
    off: Any = None
    """The value of a switch that is given as false; None: the line is to be removed."""
    words: Mapping[str, Any] = field(default_factory=dict)
    """What replaces values, by regular expression; or the whole line to type for them."""
    form: str | None = None
    """How another value becomes one here, of _FORMS; hub: a local folder, or a name of the hub."""
    decides: bool = False
    """In a file, its value counts even if a later line sets the same setting."""
    needs: str | None = None
    """In a file, the word counts unless this switch is off."""
    gpu: bool = False
    """In a file, the word counts on a machine with a GPU."""
    stage: str | None = None
    """In a file, the word is for this stage only."""
    sizes: Mapping[str, str] = field(default_factory=dict)
    """In a file, the model's size by the number of items of a list."""

    @property
    def option(self) -> str:
        """What is typed here, without a value: the option of the setting if any, else --set."""
        if self.here is None:
            return (self.line or "").partition(" ")[0]
        own = self.here if self.here.startswith("--") else _FLAGS.get(self.here)
        return own or f"--set {self.here}"

    def value(self, there: object = None) -> Any:
        """The value here for one there, or a whole line; None: a value is to be given."""
        text = "true" if there is None else plain(there).strip()
        for pattern, here in self.words.items():
            if re.fullmatch(pattern, text.lower()):
                return here
        if self.on is not None and self._is(text, ON):
            return self.on
        if self.off is not None and self._is(text, OFF):
            return self.off
        if (known := value_of(self.here, there)) is not None or there is None:
            return known
        return _FORMS[self.form](plain(there)) if self.form in _FORMS else there

    def _is(self, text: str, switches: Sequence[str]) -> bool:
        """Whether `text` is one of the words of a switch; 1 is a number where it may be one."""
        is_number = text.isdecimal() and not isinstance(self.on, str | list)
        return text.lower() in switches and not is_number

    def replacement(
        self, there: object = None, family: str | None = None, argv: Sequence[str] = ()
    ) -> str:
        """What is typed in `argv` for a value there, or REMOVE and why. Reads the disk."""
        value, text = self.value(there), "" if there is None else plain(there).strip()
        line = self.line or f"{self.option}{'=' if ' ' in self.option else ' '}{{value}}"
        if isinstance(value, str) and value.startswith((REMOVE, "--")):
            line, value = value, there
        elif self.here is None and self.line is None:
            return REMOVE + self.remark
        elif self.on is not None and self.off is None and self._is(text, OFF):
            return f"{REMOVE}off unless you ask for it"
        elif text == "null" and (self.here is None or self.here.startswith(("--", "track"))):
            return f"{REMOVE}null is the default"
        elif self.form == "hub" and there is not None:
            return pretrained_line(plain(there), family)
        elif self.form == "hub":
            line = OF_FOLDER
        elif "{folder}" in line and has_pretrained(argv):
            line = line.replace(f" {OF_FOLDER}", "")
        unknown = {*_KEY.findall(line)} - {*(setting_infos(family) if family in FAMILIES else ())}
        if unknown and family in FAMILIES:
            return f"{REMOVE}{family} has no setting {min(unknown)}"
        is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return filled(line, ",".join(value) if is_texts else value)


def filled(line: str, value: object = None, **more: str) -> str:
    """A line of the tables with a value and with the folder of a pretrained model here."""
    folder = pretrained_folder() if "{folder}" in line else ""
    remark = "" if folder is not None else "  FOLDER: that of a model of transformers"
    text = "VALUE" if value is None else shlex.quote(plain(value))
    return line.format(value=text, folder=folder or "FOLDER", **more) + remark


@dataclass(frozen=True)
class WordFile:
    """The words of one original, of several, or of other tools."""

    words: Sequence[Word]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a converted file sets besides."""
    sections: Sequence[str] = ()
    """Sections of files of the originals: each key in them has a message of its own."""
    commands: Sequence[Mapping[str, Any]] = ()
    """Other commands, and the line to type for each."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Values of settings here by what others call them, as regular expressions."""


@cache
def word_files() -> Mapping[str, WordFile]:
    """The words of several originals, of each one by its family, then of others. Reads the disk."""
    stems = sorted(path.stem for path in (FOLDER / "originals").glob("*.yaml"))
    paths = {stem: FOLDER / "originals" / f"{stem}.yaml" for stem in [SEVERAL, *stems]}
    files = {}
    for name, path in {**paths, OTHERS: FOLDER / "other_tools.yaml"}.items():
        content = node_value(read_settings_file(path))
        files[name] = WordFile(**{**content, "words": [Word(**word) for word in content["words"]]})
    return files


@cache
def _by_name() -> Mapping[str, Mapping[str, Word]]:
    return {
        owner: {fold(name): word for word in file.words for name in word.names}
        for owner, file in word_files().items()
    }


def value_of(key: str | None, value: object) -> str | None:
    """The value here for a value that other tools have for the setting `key`; None: unknown."""
    values, text = word_files()[OTHERS].values.get(key or "", {}), str(value).lower()
    return next((here for there, here in values.items() if re.fullmatch(there, text)), None)


def is_section(key: str) -> bool:
    """Whether `key` is a section of files of the originals."""
    return key in word_files()[SEVERAL].sections


def words_for(name: str, family: str | None) -> Iterator[Word]:
    """The entries of an option or key for a family, without regard to case, `-` and `_`.

    Those of its original come first, then those of other tools.
    """
    tables, name = _by_name(), fold(name)
    owners = (family or "", SEVERAL)
    yield from (
        tables[owner][part]
        for part in _parts(name)
        for owner in owners
        if part in tables.get(owner, ())
    )
    if name in tables[OTHERS]:
        yield tables[OTHERS][name]


def all_words_for(name: str, family: str | None = None) -> Iterator[Word]:
    """As `words_for`, then the entries of the originals of other families.

    Of these an entry counts only with an equivalent; where no family is known, any one.
    """
    yield from words_for(name, family)
    tables = [t for owner, t in _by_name().items() if owner not in (family, SEVERAL, OTHERS)]
    foreign = [table[part] for part in _parts(fold(name)) for table in tables if part in table]
    yield from (word for word in foreign if word.here is not None)
    yield from foreign if family is None else ()


def _parts(name: str) -> Iterator[str]:
    """The ends of a dotted key, the longest first, then the sections it is in."""
    parts = name.split(".")
    yield from (".".join(parts[at:]) for at in range(len(parts)))
    yield from parts[:-1]


def similar(name: str) -> str | None:
    """The word that `name` is most like, if it is very much so."""
    import difflib  # slow to import, and only needed for errors

    words = [word for table in _by_name().values() for word in table]
    close = difflib.get_close_matches(fold(name), words, n=1, cutoff=_VERY_CLOSE)
    return close[0] if close and close[0] != fold(name) else None


def has_pretrained(argv: Sequence[str]) -> bool:
    """Whether a command line names a pretrained model, or a --model that is one."""
    lines = [*argv, model_line(typed_model(argv) or "") or ""]
    return any(f"{PRETRAINED}=" in text for text in lines)


def families_of(keys: Sequence[str]) -> list[str]:
    """The family whose original has a file with these keys; none or several if that is unclear.

    Case counts: other tools have `lora_r`, one of the originals `LORA_R`.
    """
    names = {o: {n for w in f.words for n in w.names} for o, f in word_files().items()}
    counts = dict.fromkeys((owner for owner in names if owner not in (SEVERAL, OTHERS)), 0)
    for key in keys:
        for part in _parts(key.replace("-", "_")):
            having = [owner for owner in names if part in names[owner]]
            if len(having) == 1 and having[0] in counts:
                counts[having[0]] += 1
                break
    most = max(counts.values())
    return [family for family, count in counts.items() if count >= _ENOUGH and count * 2 > most]


def ignored_variables(
    family: str | None, values: Mapping[str, Setting], variables: Mapping[str, str]
) -> Iterator[Diagnostic]:
    """Warnings for variables of the environment that only the original of `family` reads.

    None: no model is named, and the variables of each original count. Only names in capitals of
    several words do, which no other program has, with an equivalent that the user has not set.
    """
    owners = [family] if family else [o for o in word_files() if o not in (SEVERAL, OTHERS)]
    entries = [(o, word) for o in owners if o in word_files() for word in word_files()[o].words]
    for owner, word in entries:
        setting = values.get(word.here or "")
        is_set = setting is not None and setting.is_set_by_user
        for name in word.names if word.here is not None and not is_set else ():
            if variables.get(name) and name.isupper() and "_" in name:
                model = [f"--model {owner}"] if family is None else []
                stage = [f"--stage {word.stage}"] if word.stage else []
                line = word.replacement(variables[name], owner)
                yield Diagnostic(
                    f"the environment variable {name} has no effect: only the original reads it",
                    key=word.here,
                    where=f"the environment: {name}={variables[name]}",
                    fix=" ".join([line, *model, *stage]),
                    severity="warning",
                )
