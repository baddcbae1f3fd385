"""Reads a settings file of either format, and says what keeps it from being read."""

from __future__ import annotations

from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match
from launcher.config import json_source, yaml_source
from launcher.config.nodes import Node, Unreadable


def read_settings_file(path: Path) -> Node:
    """The file's root mapping; JSON where the name ends in .json, else YAML. Reads the disk.

    Raises SettingsError where there is no such file, or it cannot be read.
    """
    text = _text(path)
    try:
        root = (
            json_source.parse_json(text) if path.suffix == ".json" else yaml_source.parse_yaml(text)
        )
    except Unreadable as broken:
        form = "JSON" if path.suffix == ".json" else "YAML"
        raise SettingsError(
            [
                Diagnostic(
                    f"{path} cannot be read as {form}: {broken.problem}",
                    where=f"{path}:{broken.line}:{broken.column}",
                    order=(0, broken.line),
                )
            ]
        ) from None
    if root.value is None:
        return Node({}, 1)
    if not isinstance(root.value, dict):
        raise SettingsError(
            [
                Diagnostic(
                    f"{path} holds no settings: its root is no mapping",
                    where=f"{path}:{root.line}",
                    allowed="keys with values, such as  optim: {lr: 1e-3}",
                )
            ]
        )
    return root


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = Diagnostic(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}",
            where=f"{path}:{line}",
            fix="save the file as UTF-8",
        )
    except FileNotFoundError:
        folder = path.parent
        there = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        like = nearest_match(path.name, there)
        fault = Diagnostic(
            f"there is no file {path}",
            value=str(path),
            where=f"--config {path}",
            did_you_mean=like and str(folder / like),
            fix=like and f"--config {folder / like}",
        )
    except OSError as error:
        fault = Diagnostic(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}",
            value=str(path),
            where=f"--config {path}",
        )
    raise SettingsError([fault])
