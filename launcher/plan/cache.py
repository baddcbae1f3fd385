"""Choices of engine auto at earlier starts, by settings, machine, data and versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from launcher.base.environment import PACKAGES
from launcher.config.provenance import Resolved
from launcher.plan.target import Described
from models.base import DataError
from models.catalog import is_custom
from models.common.data_files import cache_folder, first_files, identity
from training.storage import atomic_write

_KIND = "engines"
_IRRELEVANT = ("track", "engine.name")
_VERSIONS = ("gearshift", "torch", "deepspeed", "fairscale", "transformers")
_ROOT = Path(__file__).parents[2]


def place(resolved: Resolved, described: Described) -> Path | None:
    """The file for `resolved` on that machine; None for a custom task: its code may change."""
    if is_custom(resolved.settings.model.family):
        return None
    values = {key: value.value for key, value in resolved.values.items()}
    facts = [
        {key: value for key, value in values.items() if key not in _IRRELEVANT},
        resolved.world_size,
        {key: value for key, value in asdict(described).items() if key != "gpu"},
        _identities(Path(str(values.get("data.path"))).expanduser()),
        {name: _version(name) for name in _VERSIONS},
        _changed(),
    ]
    content = json.dumps(facts, default=str, sort_keys=True)
    return cache_folder() / _KIND / f"{hashlib.sha256(content.encode()).hexdigest()}.json"


def read(file: Path | None) -> Mapping[str, Any] | None:
    """The content; None: there is none, or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(file.read_bytes()) if file is not None else None
        return content if isinstance(content, dict) else None
    return None


def write(file: Path | None, content: Mapping[str, Any]) -> None:
    """Keep `content`; nothing where it cannot be written."""
    with suppress(OSError):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, json.dumps(content).encode())


def _identities(path: Path) -> list[tuple[int, ...]]:
    """The identity of the data, and of the first files of a folder; empty for built-in data."""
    with suppress(OSError, DataError):
        return [identity(file) for file in (path, *first_files(path))]
    return []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _changed() -> float:
    """When the code of this program last changed."""
    folders = (_ROOT / name for name in ("launcher", *sorted(PACKAGES)))
    return max(file.stat().st_mtime for folder in folders for file in folder.rglob("*.py"))
