"""The catalog of families says of each what its classes have."""

import importlib
from dataclasses import replace

import pytest

from gearshift.launcher.run import execute
from gearshift.models.catalog import FAMILIES
from tests.launcher.given import resolved
from tests.launcher.runs import trained


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_family_predicts_where_its_task_has_the_method(family):
    module, _, name = family.task.partition(":")
    task = getattr(importlib.import_module(module), name)
    assert family.predicts == (hasattr(task, "predict") or hasattr(task, "generate"))


@pytest.mark.parametrize("predicts", [True, False])
def test_a_run_ends_with_predict_only_where_its_family_can(tmp_path, monkeypatch, predicts):
    family = FAMILIES["language"]
    monkeypatch.setitem(FAMILIES, family.name, replace(family, predicts=predicts))
    run = trained(tmp_path / "run", resolved(), 10)
    assert ("predict" in (execute.next_command(run) or "")) == predicts
