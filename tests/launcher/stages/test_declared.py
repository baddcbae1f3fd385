"""Stages declared by a custom task: settings with their line, and invalid declarations."""

import pytest

from gearshift.launcher.config.schema import setting_infos
from gearshift.models.catalog import FAMILIES
from tests.launcher.given import resolved
from tests.launcher.stages.halves import TEXT

pytestmark = pytest.mark.usefixtures("search_path")
ONLY_LOWER = "stages=[lower]"


def test_a_setting_of_a_stage_has_its_line_in_the_class(task):
    part = resolved(ONLY_LOWER, model=task, mode="staged").values["model.part"]
    line = next(n for n, text in enumerate(TEXT.splitlines(), 1) if text.startswith("class "))
    assert (part.value, part.origin.layer) == ("alone", "mode")
    assert part.origin.where == f"{task.partition(':')[0]}.py:{line}"
    assert resolved(model=task).settings.model.part == "whole"  # without mode staged


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_stages_of_a_family_load_the_weights_of_earlier_ones(family):
    names = [stage.name for stage in family.stages]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(family.stages):
        assert set(stage.of) <= set(names[:number])
        assert (stage.loads is None) == (not stage.of)
        assert stage.loads is None or stage.loads in setting_infos(family.name)
