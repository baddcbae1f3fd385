"""Every section of settings has a docstring, forbids unknown keys, and cannot be changed.

That every setting has a description, tests/docs/test_written.py claims.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from pydantic import BaseModel

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


def is_open(cls: type[BaseModel]) -> bool:
    """Whether it accepts unknown keys, can be changed, or says nothing of itself."""
    is_closed = cls.model_config.get("extra") == "forbid" and cls.model_config.get("frozen")
    return not is_closed or not (cls.__doc__ or "").strip()


def test_every_section_is_closed():
    assert {"engines.settings", "training.settings", "models.language.config"} <= set(MODULES)
    assert is_open(type("Open", (BaseModel,), {"__doc__": "It accepts any key."}))
    classes = {
        cls
        for module in map(importlib.import_module, MODULES)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseModel) and cls.__module__ == module.__name__
    }
    assert len(classes) > 20 and [cls for cls in classes if is_open(cls)] == []
