import shutil
from pathlib import Path

import numpy as np
import pytest

from gearshift.models.base import DataError
from gearshift.models.language.sources import source_names
from gearshift.training.data.loader import order_of
from gearshift.training.data.mixed_order import MixedOrder
from gearshift.training.data.samples import DataOrder


@pytest.fixture
def folders(tmp_path):
    """Two folders of documents; two texts of `b` are in `a`, too."""
    for name, shared in (("a", 0), ("b", 2)):
        (tmp_path / name).mkdir()
        for number in range(12):
            text = f"{name if number >= shared else 'a'} {number} " * 20
            (tmp_path / name / f"{number}.txt").write_text(text)
    return [str(tmp_path / name) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/code.jsonl", "embedded:python"], ["code", "python"]),
        (["/x/code", "/x/my prose/"], ["code", "my-prose"]),
        (["/x/a.txt", "/x/a.md"], ["a-1", "a-2"]),
        (["hf:me/chats@0ab1:en:all", "hf:me/chats@0ab1:de:all"], ["chats-en-all", "chats-de-all"]),
    ],
)
def test_sources_have_short_names_that_differ(paths, names):
    assert source_names(paths) == names


def test_each_source_is_split_by_itself_and_has_no_text_of_another(folders, ready_task):
    task = ready_task(path=folders, seq_len=16)
    facts = task.facts()
    assert facts["groups"] == {"train": 10 + 8, "val": 2, "test": 2}
    assert facts["duplicates"] == 2
    for split in ("train", "val", "test"):
        sources = {group.partition("//")[0] for group in task.groups[split]}
        assert sources == {"a", "b"}
        samples = task.data(split)
        rows = [samples.sample(index) for index in range(len(samples))]
        assert [row.source for row in rows] == sorted(row.source for row in rows)
        for row in rows:
            text = task.tokenizer.decode(row.inputs.tolist())
            assert "ba"[row.source] not in text
    alone = ready_task(path=folders[0], seq_len=16)
    assert [f"a//{group}" for group in alone.groups["val"]] == task.groups["val"][:1]


def test_without_weights_the_order_is_that_of_one_source(folders, ready_task):
    split = ready_task(path=folders, seq_len=16).data("train")
    order = order_of(split, 4, 0)
    assert type(order) is DataOrder
    assert np.array_equal(order.batch(3)[1], DataOrder(len(split), 4, 0).batch(3)[1])
    split = ready_task(path=folders, seq_len=16, weights=[1, 0]).data("train")
    order = order_of(split, 4, 0)
    assert isinstance(order, MixedOrder)
    assert order.batch(3)[1].max() < split.source_sizes[0]


def test_text_and_conversations_do_not_mix(folders, tmp_path, ready_task):
    (tmp_path / "chat.csv").write_text("input,output\n" + "ask {},answer\n" * 9)
    with pytest.raises(DataError) as error:
        ready_task(path=[folders[0], str(tmp_path / "chat.csv")], seq_len=16)
    assert error.value.where == "data.path"


def test_a_source_with_nothing_of_its_own_is_refused(folders, ready_task):
    copy = Path(folders[0]).with_name("copy")
    shutil.copytree(folders[0], copy)
    with pytest.raises(DataError) as refused:
        ready_task(path=[folders[0], str(copy)], seq_len=16)
    assert "data.path" in refused.value.where and str(copy) in refused.value.message
