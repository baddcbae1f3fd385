"""Settings of training."""

from gearshift.training.settings import nested


def test_keys_with_dots_are_branches_of_one_tree():
    values = {"model.family": "abr", "optim.lr": 0.1, "model.size.width": 8, "seed": 3}
    model = {"family": "abr", "size": {"width": 8}}
    assert nested(values) == {"model": model, "optim": {"lr": 0.1}, "seed": 3}
