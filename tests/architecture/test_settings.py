"""Every setting explains itself where it is declared, and every group refuses unknown keys."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

import engines
import models
import slurm
import training

HOMES = [
    name
    for package in (engines, models, slurm, training)
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if name.endswith((".settings", ".config"))
]


def settings_classes(module: ModuleType) -> list[type[BaseModel]]:
    """The groups of settings that a module declares."""
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseModel) and cls.__module__ == module.__name__
    ]


def silent_fields(cls: type[BaseModel]) -> list[str]:
    """Fields without a sentence; a group within a group has its docstring instead."""
    return [
        f"{cls.__name__}.{name}"
        for name, field in cls.model_fields.items()
        if not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
        and not (field.description or "").strip()
    ]


def is_open(cls: type[BaseModel]) -> bool:
    """It takes unknown keys, or can be changed after it was read."""
    return cls.model_config.get("extra") != "forbid" or not cls.model_config.get("frozen")


def test_settings_live_where_we_look():
    assert {"engines.settings", "training.settings", "models.language.config"} <= set(HOMES)


@pytest.mark.parametrize("home", HOMES)
def test_every_setting_has_a_sentence_and_every_group_is_closed(home):
    for cls in settings_classes(importlib.import_module(home)):
        assert silent_fields(cls) == []
        assert not is_open(cls), cls.__name__
        assert (cls.__doc__ or "").strip(), cls.__name__


def test_a_silent_field_and_an_open_group_are_found():
    class Open(BaseModel):
        told: Annotated[int, Field(description="It is told.")] = 1
        silent: int = 1

    assert silent_fields(Open) == ["Open.silent"]
    assert is_open(Open)
