"""Words of the original code bases, options and settings, that have another name or none here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import OFF, ON, Diagnostic, counted, fold, plain
from launcher.config.options import OPTIONS
from launcher.config.presets import FOLDER
from launcher.config.provenance import Setting
from launcher.config.settings_file import node_value, read_settings_file

SEVERAL = "several"
"""The words that more than one original has."""
_HUB = re.compile(
    r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|(distil)?(gpt2|t5|bert|bart|roberta)[\w.-]*"
)
"""Names of models of the hub: OWNER/NAME, and the oldest ones without an owner."""
_ENOUGH = 2
"""Words of one original alone that make a file one of its files."""


def _epochs(value: object) -> object:
    return counted(int(number), "epoch") if (number := plain(value)).isdecimal() else value


def _percent(value: object) -> object:
    """A fraction of the run as a percentage."""
    try:
        return f"{float(plain(value)) * 100:g}%"
    except ValueError:
        return value


_FORMS = {
    "as is": lambda value: value,
    "hub": lambda value: value,
    "epochs": _epochs,
    "percent": _percent,
    "parent": lambda value: str(Path(str(value)).parent),
    "wandb": lambda value: [f"wandb:{value}"],
}


@dataclass(frozen=True)
class Original:
    """A word of the originals under its names there, and its equivalent."""

    names: Sequence[str]
    """As written there; `optimizer.type` only in that section."""
    here: str | None = None
    """An option, or the key of a setting; None: no equivalent."""
    remark: str = ""
    """For the page about the originals; without an equivalent, the reason, for messages too."""
    on: Any = None
    """The value of a switch that is given without a value, or as true."""
    off: Any = None
    """The value of a switch that is given as false; None: the line is to be removed."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Values that have another name here."""
    form: str = "as is"
    """How a value there becomes one here, of _FORMS; hub: a local folder, or a name of the hub."""
    decides: bool = False
    """In a file, its value counts even if a later line sets the same setting."""
    needs: str | None = None
    """In a file, the word counts unless this switch is off."""
    gpu: bool = False
    """In a file, the word counts on a machine with a GPU."""
    stage: str | None = None
    """In a file, the word is for this stage only."""
    general: bool = False
    """Whether other tools have it, too: it tells no original, and counts for every family."""
    sizes: Mapping[str, str] = field(default_factory=dict)
    """In a file, the model's size by the number of items of a list."""

    def removal(self, original_value: object) -> str | None:
        """Why nothing replaces the word with this value; None: something does."""
        if self.here is None:
            return f"remove it: {self.remark}"
        if _word(original_value) == "null" and (self.here.startswith("--") or self.here == "track"):
            return "remove it: null is the default"
        is_off = self.on is not None and self.off is None and _word(original_value) in OFF
        return "remove it: off unless you ask for it" if is_off else None

    def value(self, original_value: object) -> object:
        """The value here for an original's; None: the switch is given without a value."""
        word = _word(original_value)
        if self.on is not None and word in ON:
            return self.on
        if self.off is not None and word in OFF:
            return self.off
        return self.words.get(word) or (
            None if original_value is None else _FORMS[self.form](original_value)
        )


def hub_folder(name: object) -> str | None:
    """The folder to fetch a model of the Hugging Face hub to, if `name` is most likely one.

    Reads the disk: it may be a local path.
    """
    path = Path(str(name))
    is_local = path.exists() or (path.parent != Path() and path.parent.exists())
    return path.name if _HUB.fullmatch(str(name)) and not is_local else None


def fetched(value: object, line: Callable[[object], str]) -> str:
    """The `line` to type with `value`; for a model of the hub, after the command that fetches it.

    Reads the disk.
    """
    if (folder := hub_folder(value)) is None:
        return line(value)
    return f"hf download {value} --local-dir {folder}  and then  {line(folder)}"


def _word(original_value: object) -> str:
    return "true" if original_value is None else plain(original_value).strip().lower()


@dataclass(frozen=True)
class Words:
    """The file of one original, or of several, in ds_configs/originals."""

    words: Sequence[Original]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a converted file sets besides."""
    sections: Sequence[str] = ()
    """Sections of files of the originals: each key in them has a message of its own."""

    @classmethod
    def read(cls, path: Path) -> Words:
        """Reads the disk."""
        content = node_value(read_settings_file(path))
        return cls(**{**content, "words": [Original(**word) for word in content["words"]]})

    def by_name(self) -> dict[str, Original]:
        """The words by their folded names."""
        return {fold(name): word for word in self.words for name in word.names}


@cache
def all_words() -> Mapping[str, Words]:
    """The words of several originals, then of each one by its family. Reads the disk."""
    paths = (FOLDER / "originals").glob("*.yaml")
    ordered = sorted(paths, key=lambda path: (path.stem != SEVERAL, path.stem))
    return {path.stem: Words.read(path) for path in ordered}


@cache
def _by_name() -> dict[str, dict[str, Original]]:
    return {family: words.by_name() for family, words in all_words().items()}


@cache
def _general() -> dict[str, Original]:
    words = [word for file in all_words().values() for word in file.words if word.general]
    return Words(words).by_name()


def is_section(key: str) -> bool:
    """Whether `key` is a section of files of the originals."""
    return key in all_words()[SEVERAL].sections


def word_of(name: str, family: str) -> Original | None:
    """The entry of a family's original for an option or key, without regard to case, `-`, `_`."""
    tables = [_by_name().get(family, {}), _by_name()[SEVERAL], _general()]
    return next((t[part] for part in _parts(fold(name)) for t in tables if part in t), None)


def words_of(family: str | None) -> Iterator[tuple[str, Original]]:
    """Each word of the family's original, or of those of all families, with its family."""
    for owner, words in all_words().items():
        if owner == family or (family is None and owner != SEVERAL):
            yield from ((owner, word) for word in words.words)


def original_of(name: str, family: str | None = None) -> Original | None:
    """As `word_of`; then the entry of another family.

    Of the other families an entry counts only with an equivalent; where no family is known,
    another one will do if there is no such.
    """
    if (word := word_of(name, family or "")) is not None:
        return word
    tables = [table for key, table in _by_name().items() if key not in (family, SEVERAL)]
    others = [table[part] for part in _parts(fold(name)) for table in tables if part in table]
    with_equivalent = [word for word in others if word.here is not None]
    return next(iter([*with_equivalent, *(others if family is None else [])]), None)


def families_of(keys: Sequence[str]) -> list[str]:
    """The family whose original has a file with these keys; none or several if that is unclear.

    Case counts: other tools have `lora_r`, one of the originals `LORA_R`.
    """
    tables = {
        family: {name for word in file.words for name in word.names if not word.general}
        for family, file in all_words().items()
    }
    counts = dict.fromkeys((family for family in tables if family != SEVERAL), 0)
    for key in keys:
        for part in _parts(key.replace("-", "_")):
            having = [family for family, table in tables.items() if part in table]
            if len(having) == 1 and having[0] in counts:
                counts[having[0]] += 1
                break
    max_count = max(counts.values())
    return [
        family for family, count in counts.items() if count >= _ENOUGH and count * 2 > max_count
    ]


def _parts(name: str) -> Iterator[str]:
    """The ends of a dotted key, the longest first, then the sections it is in."""
    parts = name.split(".")
    yield from (".".join(parts[at:]) for at in range(len(parts)))
    yield from parts[:-1]


_FLAGS = {option.key: option.flag for option in OPTIONS if option.key is not None}


def flag_of(here: str | None) -> str | None:
    """The option to type for the equivalent of an original's word: its own if any, else --set."""
    return here if here is None or here.startswith("--") else _FLAGS.get(here, "--set")


def typed_option(original: Original) -> str | None:
    """What to type instead of an original's word, without a value."""
    flag = flag_of(original.here)
    return f"--set {original.here}" if flag == "--set" else flag


def typed_line(original: Original, original_value: object = None) -> str:
    """The option to type instead of an original's word, with its value; `…` for an unknown one."""
    value, option = original.value(original_value), typed_option(original)
    space = "=" if str(option).startswith("--set ") else " "
    if value is None:
        return f"{option}{space}…"
    if isinstance(value, list):
        value = ",".join(value)
    line = f"{option}{space}"
    if original.form != "hub":
        return f"{line}{shlex.quote(plain(value))}"
    return fetched(value, lambda value: f"{line}{shlex.quote(plain(value))}")


def ignored_variables(
    family: str | None, values: Mapping[str, Setting], variables: Mapping[str, str]
) -> Iterator[Diagnostic]:
    """Warnings for variables of the environment that only the original of `family` reads.

    None: no model is named, and the variables of each original count. Only names in capitals of
    several words do, which no other program has, with an equivalent that the user has not set.
    """
    for owner, word in words_of(family):
        for name in word.names:
            value, is_distinctive = variables.get(name), name.isupper() and "_" in name
            if not value or not is_distinctive or word.here is None:
                continue
            if word.here in values and values[word.here].is_set_by_user:
                continue
            model = [f"--model {owner}"] if family is None else []
            stage = [f"--stage {word.stage}"] if word.stage else []
            yield Diagnostic(
                f"the environment variable {name} has no effect: only the original reads it",
                key=word.here,
                where=f"the environment: {name}={value}",
                fix=" ".join([typed_line(word, value), *model, *stage]),
                severity="warning",
            )
