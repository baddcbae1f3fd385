"""The origin of a value, and the values it overrides."""

from launcher.config import provenance
from launcher.config.provenance import Origin, Setting
from tests.launcher.given import resolved


def value(*pairs):
    """A value from (value, layer) pairs, newest first."""
    (new, layer), *below = pairs
    return Setting(new, Origin(layer, layer), [(v, Origin(name, name)) for v, name in below])


def test_setting_the_current_value_again_is_no_decision():
    setting = value((2, "--config files"), (2, "family"), (1, "built-in"))
    assert provenance.first_origin(setting).layer == "family"
    assert not provenance.is_set_by_user(setting)


def test_changing_a_value_is_a_decision_of_the_user():
    assert provenance.is_set_by_user(
        value((3, "command line"), (3, "--config files"), (2, "family"))
    )


def test_setting_a_value_back_is_a_decision_too():
    setting = value((1, "--config files"), (2, "mode"), (1, "built-in"))
    assert provenance.first_origin(setting).layer == "--config files"


def test_the_default_is_the_value_without_mode_engine_machine_and_user():
    setting = resolved(model="language", mode="resource-efficient", lr="1").values["optim.lr"]
    assert provenance.mode_default_value(setting) == 1e-4
    assert provenance.shipped_value(setting) == 5e-5


def test_a_value_keeps_the_values_it_overrides():
    setting = provenance.overridden(
        value((2, "mode"), (1, "built-in")), 3, Origin("adapted to this machine", "why")
    )
    assert [pair[0] for pair in provenance.all_values(setting)] == [3, 2, 1]
