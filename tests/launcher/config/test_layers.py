"""Layers override one another, and a mode skips settings that a family does not have."""

from launcher.config.provenance import Origin, Setting
from tests.launcher.given import stacked


def layer(name, **values):
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return {key: Setting(v, Origin(name, name)) for key, v in dotted.items()}


def test_a_change_is_of_the_default_and_not_of_the_general_mode():
    changes = (16, {"scale": 0.5}, {"scale": 0.25}, {"scale": 2})
    names = ("family", "mode", "mode", "mode")
    layers = [layer(n, train__micro_batch=c) for n, c in zip(names, changes, strict=True)]
    for count, expected in ((2, 8), (3, 4), (4, 32)):
        values, diagnostics = stacked(layers[:count])
        assert (values["train.micro_batch"].value, diagnostics) == (expected, [])


def test_only_modes_may_change_a_value_and_an_unknown_key_is_an_error():
    for name, key, value in (
        ("family", "train.micro_batch", {"scale": 2}),
        ("--config files", "train.micro_batch", {"scale": 2}),
        ("mode", "train.speed", 2),
        ("mode", "data.downsample", 2),  # of another family
    ):
        _, diagnostics = stacked([{key: Setting(value, Origin(name, name))}])
        assert [diagnostic.key for diagnostic in diagnostics] == [key]


def test_an_invalid_value_leaves_that_of_the_lower_layer():
    layers = [layer("--config files", optim__lr="x"), layer("--config files", log__every=3)]
    values, diagnostics = stacked([*layers, layer("--config files", train__epochs=3)])
    assert [diagnostic.key for diagnostic in diagnostics] == ["optim.lr"]
    assert (values["optim.lr"].value, values["log.every"].value) == (1e-3, 3)
    assert type(values["train.epochs"].value) is float


def test_promises_of_layers_add_up():
    layers = [
        layer("mode", promise={"step_time": {"at_most": 0.5}, "parameters": {"at_most": 1}}),
        layer("mode", promise={"step_time": {"at_most": 0.4}}),
    ]
    values, _ = stacked(layers)
    assert values["promise"].value == {"step_time": {"at_most": 0.4}, "parameters": {"at_most": 1}}
