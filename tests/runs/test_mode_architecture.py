"""Modes that promise the same architecture keep names, shapes and initial weights."""

from __future__ import annotations

import pytest
import torch

from launcher.config.schema import task_class
from models.base import Context
from models.catalog import FAMILIES
from tests.launcher.given import SERVER, resolved
from training import seeds

KEEP = ("resource-efficient", "fast", "ultra-fast", "benchmark", "conservative")
SAME_DATA = ("resource-efficient", "conservative")
"""They hold out as much as default does: values fitted on the training data are the same."""
MAY_DIFFER = {"loss", "curriculum"}
"""Settings of models that change what is trained, not the architecture."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The tiny model of each family in each mode, with its initial weights."""
    built_states = {}

    def build(family, mode):
        if (family, mode) not in built_states:
            settings = resolved(model=f"{family}:tiny", mode=mode).settings
            folder = tmp_path_factory.mktemp(f"{family}-{mode}")
            context = Context(0, settings.eval.share, folder, torch.device("cpu"))
            task = task_class(family)(settings.model, settings.data, context)
            task.setup()
            seeds.seed_weights(settings.train.seed)
            built_states[family, mode] = dict(task.build().state_dict())
        return built_states[family, mode]

    return build


@pytest.mark.parametrize("mode", KEEP)
@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_of_all_parameters_are_those_of_default(built, family, mode):
    shapes = {name: tensor.shape for name, tensor in built(family, mode).items()}
    assert shapes == {name: tensor.shape for name, tensor in built(family, "default").items()}


@pytest.mark.parametrize("mode", SAME_DATA)
@pytest.mark.parametrize("family", FAMILIES)
def test_initial_weights_are_bit_equal_to_those_of_default(built, family, mode):
    ours, plain = built(family, mode), built(family, "default")
    assert [name for name in plain if not torch.equal(ours[name], plain[name])] == []


@pytest.mark.parametrize("mode", KEEP)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_size_is_built_from_the_same_settings(family, mode):
    plain = resolved(model=family, machine=SERVER).settings.model.model_dump()
    ours = resolved(model=family, mode=mode, machine=SERVER).settings.model.model_dump()
    assert {k for k in plain if ours[k] != plain[k]} <= MAY_DIFFER
