import numpy as np

from models.common.family import samples_of_others
from tests.models.errors import error_of


def test_every_sample_goes_to_another_group_and_none_is_lost():
    for counts in ([5, 5], [4, 3, 2, 1], [1] * 30, [10, 4, 6]):
        group = np.repeat([f"p{i}" for i in range(len(counts))], counts)
        order = samples_of_others(group, [0])
        assert sorted(order) == list(range(len(group)))
        assert not (group[order] == group).any()
    assert error_of(samples_of_others, ["a", "a", "a", "b"], [0]).where == "data.control"
