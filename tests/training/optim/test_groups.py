"""Learning rates of the parts of a model."""

import pytest

from gearshift.training.optim import optimizer
from gearshift.training.optim.groups import lr_factors
from gearshift.training.optim.updater import set_lr
from gearshift.training.settings import Optim, SettingError
from tests.engines.parity import FACTORS, Net, Parts
from tests.training.tiny import make_settings, one_rank


def test_layers_decay_from_the_last_one_and_embeddings_are_below_them():
    factors = lr_factors(FACTORS, Net(), Parts())
    assert factors["embedding.weight"] == ("embedding", 0.5 * 0.4**4)
    assert factors["blocks.0.qkv.weight"] == ("layers.0", 0.4**3)
    assert factors["blocks.2.qkv.weight"] == ("layers.2", 0.4)
    assert factors["norm.bias"] == ("norm", 3.0)
    assert factors.keys() & {"seven", "positions", "frozen.weight"} == set()


def test_without_decay_all_layers_are_one_part():
    model = Net()
    settings = make_settings(optim={"groups": {"layers": 0.1}, "weight_decay": 0.1})
    divided = optimizer.spec(settings, model, one_rank(), task=Parts())
    lrs = set_lr(groups := [dict(options) for options in divided.options], 2.0)
    assert lrs == {"layers": 0.2}
    assert [(group["weight_decay"], group["lr"]) for group in groups] == [
        *((0.1, 2.0), (0.1, 0.2), (0.0, 2.0), (0.0, 0.2))
    ]
    for name, parameter in model.named_parameters():
        group = groups[divided.group_of(name, parameter)]
        assert group["lr"] == (0.2 if name.startswith("blocks") else 2.0)
        assert group["weight_decay"] == (0.1 if parameter.dim() > 1 else 0.0)


def test_an_unknown_or_frozen_part_is_refused_with_the_parts_of_the_model():
    for part, near in (("layer", "layers"), ("frozen", None)):
        with pytest.raises(SettingError) as raised:
            lr_factors(Optim(groups={part: 0.5, "norm": 2.0}), Net(), Parts())
        error = raised.value
        assert (error.key, error.did_you_mean) == ("optim.groups", near)
        assert error.allowed == "layers, embedding, norm"
        assert f"names {part!r}" in error.problem
