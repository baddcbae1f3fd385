"""Modes that promise the same architecture keep names, shapes and initial weights."""

import pytest
import torch

from gearshift.launcher.config.schema import task_class
from gearshift.models.base import Context
from gearshift.training import seeds
from tests.ds_configs.tables import SHIPPED
from tests.launcher.given import SERVER, resolved

KEEP = ("resource-efficient", "fast", "ultra-fast", "benchmark", "conservative")
SAME_DATA = ("resource-efficient", "conservative")
"""They hold out as much as default does: values fitted on the training data are the same."""
MAY_DIFFER = {"loss", "curriculum"}
"""Settings of models that change what is trained, not the architecture."""


def initial(family, mode, folder):
    """The tiny model of a family in a mode, with its initial weights."""
    settings = resolved(model=f"{family}:tiny", mode=mode).settings
    context = Context(0, settings.eval.share, folder, torch.device("cpu"))
    task = task_class(family)(settings.model, settings.data, context)
    task.setup()
    seeds.seed_weights(settings.train.seed)
    return dict(task.build().state_dict())


@pytest.mark.parametrize("family", SHIPPED)
def test_parameters_and_where_the_data_is_the_same_initial_weights_are_those_of_default(
    family, tmp_path
):
    plain = initial(family, "default", tmp_path / "default")
    for mode in KEEP if family == "language" else SAME_DATA[:1]:
        ours = initial(family, mode, tmp_path / mode)
        assert list(ours) == list(plain), mode
        assert [name for name in plain if ours[name].shape != plain[name].shape] == [], mode
        if mode in SAME_DATA:
            assert [name for name in plain if not torch.equal(ours[name], plain[name])] == [], mode


@pytest.mark.parametrize("family", SHIPPED)
def test_the_full_size_is_built_from_the_same_settings(family):
    plain = resolved(model=family, machine=SERVER).settings.model.model_dump()
    for mode in KEEP:
        ours = resolved(model=family, mode=mode, machine=SERVER).settings.model.model_dump()
        assert {k for k in plain if ours[k] != plain[k]} <= MAY_DIFFER, mode
