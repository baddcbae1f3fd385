from __future__ import annotations

import pytest

from models.base import DataError
from models.common.faults import Faults


def found(count: int) -> Faults:
    faults = Faults("pages")
    for number in range(1, count + 1):
        faults.add(f"page {number}", "no image")
    return faults


def test_faults_are_told_together_with_their_number_and_the_mend():
    with pytest.raises(DataError) as error:
        found(5).settle("stop", read=7)
    assert str(error.value) == (
        "5 of 12 pages cannot be used\n"
        "  where         page 1: no image\n"
        "           page 2: no image\n"
        "           page 3: no image\n"
        "           and 2 more\n"
        "  fix           repair them, or leave them out with  --set data.on_bad=skip"
    )


def test_faults_that_may_be_skipped_are_counted_and_the_first_ones_told():
    faults = found(5)
    assert faults.settle("skip", read=7) == 5
    assert faults.told() == ["page 1: no image", "page 2: no image", "page 3: no image"]


def test_where_nothing_is_wrong_nothing_is_said():
    assert found(0).settle("stop", read=7) == 0


def test_only_the_first_faults_are_held_and_all_are_counted():
    faults = found(100_000)
    assert (faults.count, len(faults.rows)) == (100_000, 3)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_what_was_found_since_can_be_forgotten(count):
    faults = found(count)
    told = faults.told()
    faults.add("page x", "no image")
    faults.back_to(count)
    assert faults.settle("skip", read=1) == count
    assert faults.told() == told
