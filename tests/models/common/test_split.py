import json

import pytest

from models.base import DataError
from models.common.split import load_sides, save_split, split_groups

WHAT = "language has {} groups (files, documents or requests)"
GROUPS = [f"g{i:03}" for i in range(100)]


def test_a_group_is_on_one_side_only_and_none_is_lost():
    splits = split_groups(GROUPS * 3, 1.0, 0.1, seed=0, what=WHAT)
    assert {name: len(groups) for name, groups in splits.items()} == {
        "val": 10,
        "test": 10,
        "train": 80,
    }
    assert sorted(g for groups in splits.values() for g in groups) == GROUPS


def test_the_split_depends_on_the_set_of_groups_the_shares_and_the_seed_only():
    first = split_groups(GROUPS, 1.0, 0.1, seed=0, what=WHAT)
    assert split_groups(reversed(GROUPS), 1.0, 0.1, seed=0, what=WHAT) == first
    assert split_groups(GROUPS, 1.0, 0.1, seed=1, what=WHAT) != first


def test_a_fraction_takes_so_many_groups():
    splits = split_groups(GROUPS, 0.5, 0.1, seed=0, what=WHAT)
    assert sum(map(len, splits.values())) == 50
    assert len(splits["val"]) == 5


def test_a_share_that_binary_fractions_cannot_hold_counts_as_written():
    assert len(split_groups(GROUPS, 1.0, 0.29, seed=0, what=WHAT)["val"]) == 29


def test_an_empty_validation_is_told_with_its_counts():
    with pytest.raises(DataError) as error:
        split_groups(GROUPS[:8], 1.0, 0.1, seed=0, what=WHAT)
    assert str(error.value) == (
        "val and test would be empty: language has 8 groups (files, documents or requests), and "
        "eval.share 0.1 of them is 0, held out twice\n"
        "  where         eval.share, data.fraction, data.path\n"
        "  allowed       at least one group each for train, val and test\n"
        "  fix           --set eval.share=0.13, or more data"
    )
    assert split_groups(GROUPS[:8], 1.0, 0.13, seed=0, what=WHAT)["val"]


@pytest.mark.parametrize(
    ("groups", "share", "what"),
    [
        (2, 0.5, "train would be empty: language has 2 groups"),
        (10, 0.5, "train would be empty: language has 10 groups"),
        (1, 0.1, "val and test would be empty: language has 1 groups"),
    ],
)
def test_each_empty_side_is_named(groups, share, what):
    with pytest.raises(DataError) as error:
        split_groups(GROUPS[:groups], 1.0, share, seed=0, what=WHAT)
    assert what in str(error.value)


def test_a_run_folder_keeps_the_split_and_refuses_another(tmp_path):
    splits = split_groups(GROUPS, 1.0, 0.1, seed=0, what=WHAT)
    save_split(splits, tmp_path)
    kept = json.loads((tmp_path / "split.json").read_text())
    assert kept["val"] == splits["val"] and kept["counts"]["train"] == 80
    save_split(splits, tmp_path)
    with pytest.raises(DataError, match="is not what this run began with"):
        save_split(split_groups(GROUPS[:99], 1.0, 0.1, seed=0, what=WHAT), tmp_path)


def test_other_groups_replace_the_split_of_a_run_whose_data_begins_anew(tmp_path):
    save_split(split_groups(GROUPS, 1.0, 0.1, seed=0, what=WHAT), tmp_path)
    other = split_groups(GROUPS[:99], 1.0, 0.1, seed=0, what=WHAT)
    save_split(other, tmp_path, anew=True)
    save_split(other, tmp_path)


def test_groups_that_join_stay_on_the_side_where_they_were():
    earlier = {"g001": "val", "g002": "train", "g003": "test", "g099": "val"}
    splits = split_groups(GROUPS, 1.0, 0.1, seed=0, what=WHAT, earlier=earlier)
    assert {g: next(n for n, of in splits.items() if g in of) for g in earlier} == earlier
    assert sorted(g for groups in splits.values() for g in groups) == GROUPS


def test_of_few_new_groups_at_least_one_each_is_held_out():
    splits = split_groups(GROUPS[:3], 1.0, 0.1, seed=0, what=WHAT, earlier={})
    assert {name: len(groups) for name, groups in splits.items()} == {
        "val": 1,
        "test": 1,
        "train": 1,
    }


@pytest.mark.parametrize(
    ("groups", "earlier", "empty"),
    [
        (GROUPS[:2], {}, "train"),
        (GROUPS[:1], {}, "train and test"),
        (GROUPS[:2], dict.fromkeys(GROUPS[:2], "train"), "val and test"),
    ],
)
def test_groups_that_join_and_are_too_few_are_told_with_what_is_missing(groups, earlier, empty):
    with pytest.raises(DataError) as raised:
        split_groups(groups, 1.0, 0.1, seed=0, what=WHAT, earlier=earlier)
    assert raised.value.message.startswith(
        f"{empty} would be empty: language has {len(groups)} groups"
    )


def test_the_sides_of_a_split_that_was_kept_are_known(tmp_path):
    splits = split_groups(GROUPS, 1.0, 0.1, seed=0, what=WHAT)
    assert load_sides(tmp_path) == {}
    save_split(splits, tmp_path)
    assert load_sides(tmp_path) == {
        group: name for name, groups in splits.items() for group in groups
    }
