"""Every setting has a description where it is declared; every section forbids unknown keys."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Annotated

from pydantic import BaseModel, Field

import engines
import models
import slurm
import training

MODULES = [
    name
    for package in (engines, models, slurm, training)
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if name.endswith((".settings", ".config"))
]


def settings_classes(module: ModuleType) -> list[type[BaseModel]]:
    """The sections of settings that a module declares."""
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseModel) and cls.__module__ == module.__name__
    ]


def undescribed_fields(cls: type[BaseModel]) -> list[str]:
    """Fields without a description; a nested section has its docstring instead."""
    return [
        f"{cls.__name__}.{name}"
        for name, field in cls.model_fields.items()
        if not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
        and not (field.description or "").strip()
    ]


def is_mutable(cls: type[BaseModel]) -> bool:
    """Whether it accepts unknown keys, or can be changed after it was created."""
    return cls.model_config.get("extra") != "forbid" or not cls.model_config.get("frozen")


def test_settings_modules_are_found():
    assert {"engines.settings", "training.settings", "models.language.config"} <= set(MODULES)


def test_every_setting_is_described_and_every_section_is_closed():
    for name in MODULES:
        for cls in settings_classes(importlib.import_module(name)):
            assert undescribed_fields(cls) == [], name
            assert not is_mutable(cls), (name, cls.__name__)
            assert (cls.__doc__ or "").strip(), (name, cls.__name__)


def test_an_undescribed_field_and_an_open_section_are_found():
    class Open(BaseModel):
        described: Annotated[int, Field(description="A number.")] = 1
        undescribed: int = 1

    assert undescribed_fields(Open) == ["Open.undescribed"]
    assert is_mutable(Open)
