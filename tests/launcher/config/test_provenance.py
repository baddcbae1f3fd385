"""The origin of a value, and the values it overrides."""

from launcher.config.provenance import Origin, Setting
from tests.launcher.given import resolved


def value(*pairs):
    """A value from (value, layer) pairs, newest first."""
    (new, layer), *below = pairs
    return Setting(new, Origin(layer, layer), [(v, Origin(name, name)) for v, name in below])


def test_only_a_changed_value_is_a_decision_of_the_user():
    setting = value((2, "--config files"), (2, "family"), (1, "built-in"))
    assert setting.first_origin.layer == "family"
    assert not setting.is_set_by_user
    assert value((3, "command line"), (3, "--config files"), (2, "family")).is_set_by_user
    back = value((1, "--config files"), (2, "mode"), (1, "built-in"))
    assert back.first_origin.layer == "--config files"


def test_the_default_is_the_value_without_mode_engine_machine_and_user():
    setting = resolved(model="language", mode="resource-efficient", lr="1").values["optim.lr"]
    assert setting.mode_default == 1e-4
    assert setting.shipped == 5e-5
