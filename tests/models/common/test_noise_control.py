import numpy as np
import pytest

from gearshift.models.common.noise_control import of_other_groups
from tests.models.errors import error_of


@pytest.mark.parametrize("counts", [(5, 5), (6, 3, 3), (1, 1), (4, 3, 2, 1), (1,) * 30, (10, 4, 6)])
def test_every_sample_goes_to_another_group_and_none_is_lost(counts):
    group = np.repeat([f"p{i}" for i in range(len(counts))], counts)
    for seed in range(20):
        order = of_other_groups(group, seed)
        assert sorted(order) == list(range(len(group)))
        assert not (group[order] == group).any()
        assert order.tolist() == of_other_groups(group, seed).tolist()


def test_a_group_with_more_than_half_of_the_samples_is_an_error():
    assert (
        error_of(of_other_groups, np.array(["a", "a", "a", "b"]), [0]).where == "data.control=noise"
    )
