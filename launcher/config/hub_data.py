"""Data sets of the Hugging Face hub: which files a config and a split have, and their download."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from glob import escape
from pathlib import Path
from shutil import rmtree
from typing import Any

from gearshift.launcher.base.diagnostics import MANY, Diagnostic, SettingsError, nearest_match
from gearshift.launcher.config import errors, hub
from gearshift.launcher.config.feature_checks import is_requested
from gearshift.launcher.config.hub import Repository
from gearshift.launcher.config.provenance import CLI_LAYER, Setting, Values, hub_names, with_another
from gearshift.launcher.config.schema import DATA_PATH
from gearshift.models.catalog import HUB, data_folder
from gearshift.models.common.data_files import TRAIN, by_split

_DATA = re.compile(r"\w.*\.(parquet|jsonl|json|csv|txt)(\.gz)?", re.IGNORECASE)
_WORD = re.compile(r"\w[\w.+ -]*")
"""A config or a split: it names a folder."""
_CARD = "README.md"
_DEFAULT = "default"
Files = list[str]
"""Paths in the repository."""
Configs = dict[str, dict[str, Files]]
"""Files by config and split; a default config comes first."""


def is_asked(values: Values) -> bool:
    """Whether the command line asks for a download of data.path; a file may come from others.

    It does if it names the data, and with --download-data.
    """
    return values[DATA_PATH].origin.layer == CLI_LAYER or is_requested(values)


def pin_setting(key: str, values: Values) -> tuple[Setting, list[str], list[Diagnostic]]:
    """A setting with the commits of the models or data sets that it names, notes and errors."""
    setting = values[key]
    notes = []
    diagnostics: list[Diagnostic] = []
    for name in hub_names(values, key):
        try:
            if key == DATA_PATH:
                pinned = pin(name, may_download=is_asked(values))
                state = "in the cache" if is_cached(pinned) else "not downloaded yet"
            else:
                pinned = hub.fetch(name)
                state = f"the commit of {name}"
        except SettingsError as error:
            diagnostics += errors.of_value(values, key, error, name)
            continue
        if key == DATA_PATH or pinned != name:
            notes.append(f"{key}: {pinned}, {state}")
        setting = replace(setting, value=with_another(setting.value, name, pinned))
    return setting, notes, diagnostics


@cache
def pin(name: str, *, may_download: bool) -> str:
    """`hf:ID@COMMIT:CONFIG:SPLIT` of `hf:ID[@REVISION][:CONFIG][:SPLIT]`; downloads no data.

    Without `may_download`, and in a rank of torchrun or srun, only the cache is used, which must
    have the files. Touches network and disk. Raises SettingsError.
    """
    source = hub.repository(name, "dataset", may_download=may_download)
    _, head, *parts = name.split(":")
    if len(parts) == 2 and is_cached(name):
        return name
    commit, configs = _configs(source)
    if not configs:
        raise SettingsError.of(
            f"{name} has no file of parquet, jsonl, json, csv or txt; no code of it is run",
            value=name,
            hint=f"{HUB}{source.id}@refs/convert/parquet  is what the hub converts it to",
        )
    pinned = f"{HUB}{source.id}@{commit}:{_choose(name, f'{HUB}{head}', parts, configs)}"
    if source.is_local and not is_cached(pinned):
        raise source.absent()
    return pinned


def is_cached(name: str) -> bool:
    """Whether all files of a name that `pin` gave were downloaded. Reads the disk."""
    folder = data_folder(name)
    return folder.is_dir() and all(path.exists() for path in folder.rglob("*"))


def fetch(name: str, *, may_download: bool) -> None:
    """Download the files of a name that `pin` gave, as far as the cache lacks them.

    Touches network and disk. Raises SettingsError.
    """
    if is_cached(name):
        return
    source = hub.repository(name, "dataset", may_download=may_download)
    if source.is_local:
        raise source.absent()
    _, configs = _configs(source)
    *_, config, split = name.split(":")
    files = configs[config][split]
    source.snapshot([*map(escape, files)], is_announced=True)
    source.ask(partial(_link, data_folder(name), files))


def _configs(repository: Repository) -> tuple[str, Configs]:
    """The commit and its files; where the hub cannot be asked, what the cache has of them."""
    from huggingface_hub import HfApi

    snapshot = repository.snapshot([_CARD])
    commit = snapshot.name
    list_files = partial(HfApi().dataset_info, repository.id, revision=commit)
    try:
        if repository.is_local:
            raise repository.absent()
        listed = repository.ask(list_files).siblings or ()
    except SettingsError:
        configs: Configs = {}
        for folder in data_folder(f"{HUB}{repository.id}@{commit}").glob("[!.]*/[!.]*"):
            configs.setdefault(folder.parent.name, {})[folder.name] = []
        if not configs:
            raise
        return commit, configs
    paths = [file.rfilename for file in listed]
    files = [path for path in paths if _DATA.fullmatch(path) and "../" not in path]
    configs = _by_card(snapshot / _CARD, files)
    if files and not configs:
        configs = {_DEFAULT: by_split(files)}
    return commit, configs


def _by_card(card: Path, files: Files) -> Configs:
    """The files as the metadata of a data set declare them; empty: they declare nothing.

    Source: huggingface.co/docs/hub/datasets-manual-configuration.
    """
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    configs: Configs = {}
    try:
        entries = (metadata_load(card) or {}).get("configs") or ()
        # The default config comes first.
        for entry in sorted(entries, key=lambda entry: not entry.get(_DEFAULT, False)):
            splits: dict[str, Files] = {}
            for split, pattern in _patterns(entry.get("data_files")):
                matches = [path for path in files if _matches(path, pattern)]
                if matches and _WORD.fullmatch(split):
                    splits.setdefault(split, []).extend(matches)
            folder = entry.get("data_dir")
            if folder:
                splits = by_split([path for path in files if path.startswith(str(folder))])
            config = str(entry.get("config_name", _DEFAULT))
            if splits and _WORD.fullmatch(config):
                configs[config] = splits
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, YAMLError):
        return {}  # no metadata, or not in this form: the names of files count
    return configs


def _patterns(data_files: Any) -> Iterator[tuple[str, str]]:
    """Each split with a pattern of paths, of the forms that `data_files` may have."""
    pairs: list[tuple[Any, Any]] = [(TRAIN, data_files or ())]
    if isinstance(data_files, list) and isinstance(next(iter(data_files), None), Mapping):
        pairs = [(entry["split"], entry["path"]) for entry in data_files]
    for split, paths in pairs:
        for path in [paths] if isinstance(paths, str) else paths:
            yield str(split), str(path)


def _matches(path: str, pattern: str) -> bool:
    """Whether a path matches: `*` stays within a folder, `**/` is any number of them, or none."""
    pattern = pattern.removeprefix("./")
    if "**" in pattern:
        return fnmatchcase(path, pattern) or fnmatchcase(path, pattern.replace("**/", ""))
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


def _choose(name: str, head: str, parts: Sequence[str], configs: Configs) -> str:
    """`CONFIG:SPLIT` that `parts` name. Raises SettingsError, which lists them."""
    names = []
    for config, splits in configs.items():
        names += [f"{config}:{split}" for split in splits]
    first = next(iter(configs))
    typed = ":".join(parts)
    whole = typed if len(parts) == 2 else f"{first}:{typed or TRAIN}"
    wanted = [typed, f"{typed}:{TRAIN}"]
    if len(configs) == 1 or first == _DEFAULT:
        wanted.append(whole)
    for each in wanted:
        if each in names:
            return each
    options = [f"{head}:{part}" for part in names[:MANY]]
    if len(names) > MANY:
        options.append(f"and {len(names) - MANY} more")
    nearest = f"{head}:{nearest_match(whole, names) or names[0]}"
    raise SettingsError.of(
        f"{name} names none of its configs and splits",
        value=name,
        allowed=", ".join(options),
        did_you_mean=nearest,
        fix=nearest,
        replaces=(name,),
    )


def _link(folder: Path, files: Files) -> None:
    """Link the files from the snapshot of their commit: `folder` has all of them, or none."""
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    rmtree(new, ignore_errors=True)
    commit = folder.parents[1]
    snapshot = commit.parents[1] / "snapshots" / commit.name
    for path in files:
        link = new / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(snapshot / path, link.parent))
    if not folder.is_dir():  # another process may be first
        new.rename(folder)
