import json
from dataclasses import replace

import pytest

from gearshift.models.base import DataError
from gearshift.models.common.split import (
    SplitRule,
    load_sides,
    overlapping_groups,
    save_split,
    split_groups,
)
from gearshift.training.storage import StorageError
from tests.models.tasks import saving_context

NOUN = "files, documents or requests"
GROUPS = [f"g{i:03}" for i in range(100)]


def counts(splits):
    return [len(splits[name]) for name in ("train", "val", "test")]


def test_every_group_is_in_exactly_one_split():
    splits = split_groups(GROUPS * 3, SplitRule(0.1), NOUN)
    assert counts(splits) == [80, 10, 10]
    assert sorted(g for groups in splits.values() for g in groups) == GROUPS
    # A share that binary fractions cannot hold counts as written.
    assert counts(split_groups(GROUPS, SplitRule(0.29), NOUN)) == [42, 29, 29]


def test_a_share_below_one_group_holds_out_one_group():
    for count, share in ((3, 1e-6), (29, 0.02), (33, 0.02), (50, 0.02)):
        assert counts(split_groups(range(count), SplitRule(share), "documents")) == [
            count - 2,
            1,
            1,
        ]


def test_every_proposed_share_fits():
    for count in (*range(3, 100), 100, 101, 999, 1000, 10_000, 20_001):
        with pytest.raises(DataError) as error:
            split_groups(range(count), SplitRule(0.99), "documents")
        proposed = float(error.value.fix.removeprefix("--set eval.share="))
        assert all(split_groups(range(count), SplitRule(proposed), "x").values())
    for count in (1, 2):
        with pytest.raises(DataError) as error:
            split_groups(range(count), SplitRule(0.5), "documents")
        assert "--set" not in error.value.fix


@pytest.mark.parametrize(("count", "share", "folds"), [(100, 0.1, 5), (11, 0.2, 4), (8, 0.2, 7)])
def test_the_folds_cut_all_groups_but_those_of_an_ordinary_test_split(count, share, folds):
    rule, groups = SplitRule(share, seed=3), GROUPS[:count]
    test = split_groups(groups, rule, NOUN)["test"]
    cut = [
        split_groups(groups, replace(rule, fold=f"{k}/{folds}"), NOUN) for k in range(1, 1 + folds)
    ]
    assert all(splits["test"] == test for splits in cut)
    assert sorted([*test, *(g for splits in cut for g in splits["val"])]) == groups
    assert all(sorted(g for part in splits.values() for g in part) == groups for splits in cut)
    sizes = [len(splits["val"]) for splits in cut]
    assert max(sizes) - min(sizes) <= 1
    assert cut[0] != split_groups(groups, SplitRule(share, seed=4, fold=f"1/{folds}"), NOUN)


def test_leaving_one_group_out_validates_on_each_group_once():
    rule = SplitRule(0.2, fold="8/groups")
    every = [
        split_groups(GROUPS[:10], replace(rule, fold=f"{k}/groups"), NOUN) for k in range(1, 9)
    ]
    assert [len(splits["val"]) for splits in every] == [1] * 8
    assert len({splits["val"][0] for splits in every}) == 8
    assert every[7] == split_groups(GROUPS[:10], replace(rule, fold="8/8"), NOUN)


@pytest.mark.parametrize(
    ("fold", "fix"), [("2/9", "2/8"), ("9/9", "8/8"), ("9/groups", "8/groups")]
)
def test_more_folds_than_groups_are_an_error_with_the_most_that_fit(fold, fix):
    with pytest.raises(DataError) as error:
        split_groups(GROUPS[:10], SplitRule(0.2, fold=fold), "patients")
    assert error.value.fix == f"--set data.fold={fix}" and error.value.allowed == "at most 8 folds"
    assert split_groups(GROUPS[:10], SplitRule(0.2, fold=fix), "patients")["train"]


def test_a_run_folder_saves_the_split_and_refuses_another_unless_data_is_reset(tmp_path):
    context = saving_context(tmp_path)
    resetting = replace(context, reset_data=True)
    splits = split_groups(GROUPS, SplitRule(0.1), NOUN)
    assert load_sides(tmp_path) == {}
    for _ in range(2):
        save_split(splits, context)
    saved = json.loads((tmp_path / "split.json").read_text())
    assert saved["val"] == splits["val"] and saved["counts"]["train"] == 80
    assert load_sides(tmp_path) == {g: name for name, groups in splits.items() for g in groups}
    other = split_groups(GROUPS[:99], SplitRule(0.1), NOUN)
    with pytest.raises(DataError, match="has changed since this run started"):
        save_split(other, context)
    save_split(other, resetting)
    save_split(other, context)
    fold = split_groups(GROUPS, SplitRule(0.1, fold="2/5"), NOUN)
    save_split(fold, resetting, SplitRule(0.1, fold="2/5"))
    assert json.loads((tmp_path / "split.json").read_text())["fold"] == "2/5"
    with pytest.raises(DataError, match="has changed since this run started"):
        save_split(split_groups(GROUPS, SplitRule(0.1, fold="3/5"), NOUN), context)


def test_earlier_groups_stay_in_their_split():
    earlier = {"g001": "val", "g002": "train", "g003": "test", "g099": "val"}
    splits = split_groups(GROUPS, SplitRule(0.1, earlier=earlier), NOUN)
    assert {g: next(n for n, of in splits.items() if g in of) for g in earlier} == earlier
    assert sorted(g for groups in splits.values() for g in groups) == GROUPS
    # Of new groups, at least one each is held out.
    few = split_groups(GROUPS[:3], SplitRule(0.1, earlier={}), NOUN)
    assert counts(few) == [1, 1, 1]


@pytest.mark.parametrize(
    ("groups", "earlier", "empty"),
    [
        (GROUPS[:2], {}, "train"),
        (GROUPS[:1], {}, "train and test"),
        (GROUPS[:2], dict.fromkeys(GROUPS[:2], "train"), "val and test"),
    ],
)
def test_too_few_new_groups_are_an_error_that_names_the_empty_splits(groups, earlier, empty):
    new = len(set(groups) - set(earlier))
    with pytest.raises(DataError) as raised:
        split_groups(groups, SplitRule(0.1, earlier=earlier), NOUN)
    assert raised.value.message.startswith(f"{empty} would be empty: {new} of {len(groups)} files")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"train": 1}', '{"train": [["a"]]}', '{"val": [{}]}', "[" * 9999]
)
def test_a_damaged_split_is_one_error_that_says_what_to_do(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    for read in (load_sides, overlapping_groups):
        with pytest.raises(DataError, match="is damaged") as error:
            read(tmp_path)
        assert error.value.hint.startswith("delete it")


def test_a_context_replaces_a_file_only_where_it_changes_and_follows_no_link(tmp_path):
    context = saving_context(tmp_path)
    for name in ("a", ".a.new"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    context.save("a", "ä")
    assert (tmp_path / "a").read_bytes() == "ä".encode() and not (tmp_path / "a").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    before = (tmp_path / "a").stat()
    context.save("a", "ä")
    assert (tmp_path / "a").stat() == before


def test_a_failed_write_is_an_error_of_storage_and_leaves_the_file(tmp_path):
    context = saving_context(tmp_path)
    context.save("a", "before")
    (tmp_path / ".a.new").mkdir()
    with pytest.raises(StorageError) as error:
        context.save("a", "after")
    assert error.value.path == tmp_path / "a"
    assert (tmp_path / "a").read_text() == "before"
