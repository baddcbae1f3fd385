"""Engines are found by name; errors have the alternatives."""

import pytest

from gearshift.engines import catalog
from gearshift.engines.base import EngineError, Options
from gearshift.engines.catalog import Entry, build_engine, find
from gearshift.engines.world import open_world


def test_an_unknown_name_is_an_error_with_all_names_and_the_closest_match():
    with pytest.raises(
        EngineError, match=r"unknown engine 'zer2'; allowed: local.*did you mean zero2"
    ):
        find("zer2")


def test_a_missing_package_is_named_with_engines_without_it(monkeypatch):
    absent = Entry("absent", "requires a missing package", "no", "no", ("no_such_package",))
    monkeypatch.setitem(catalog.ENGINES, "absent", absent)
    world = open_world("cpu", 5.0, always_group=False)
    with pytest.raises(
        EngineError, match=r"package no_such_package.*engines without it: local, ddp"
    ):
        build_engine("absent", world, Options())
