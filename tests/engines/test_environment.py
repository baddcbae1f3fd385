"""The position of a process is read from torchrun's variables."""

import pytest

from gearshift.engines.base import EngineError
from gearshift.engines.environment import RankInfo, read_ranks

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
}


def test_the_rank_is_read_from_torchruns_variables_and_without_them_is_a_world_of_one():
    assert read_ranks(TORCHRUN) == RankInfo(rank=5, size=8, local_rank=1, local_size=4, node=1)
    assert read_ranks({}) == RankInfo(rank=0, size=1, local_rank=0, local_size=1, node=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"RANK": "8"}, "RANK 8 of WORLD_SIZE 8"),
        ({"RANK": "five"}, "RANK=five in the environment is not an integer"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK 4 of LOCAL_WORLD_SIZE 4"),
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
    ],
)
def test_an_impossible_rank_is_an_error(change, text):
    environment = {k: v for k, v in (TORCHRUN | change).items() if v is not None}
    with pytest.raises(EngineError, match=text):
        read_ranks(environment)
