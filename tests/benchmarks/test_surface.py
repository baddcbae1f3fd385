"""Two recordings of command lines are compared leaf by leaf."""

from benchmarks.surface import differences, error


def test_a_changed_value_a_new_key_and_a_lost_one_are_differences():
    before = {"explain": [0, {"optim.lr": {"value": 1}}], "list": [0, "text"]}
    after = {"explain": [0, {"optim.lr": {"value": 2, "layer": "mode"}}], "list": [0]}
    assert differences(before, after) == [
        "/explain/1/optim.lr/layer: 'absent' -> 'mode'",
        "/explain/1/optim.lr/value: 1 -> 2",
        "/list/1: 'text' -> 'absent'",
    ]
    assert differences(before, before) == []


def test_an_error_is_recorded_by_code_key_and_where():
    assert error("--engine", "zero9") == [2, ["engine.name", "--engine zero9"]]
