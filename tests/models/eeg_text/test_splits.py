import json
from collections import namedtuple

import pytest

from gearshift.models.base import DataError
from gearshift.models.common.split import SPLITS, SplitRule, save_split
from gearshift.models.eeg_text.recordings import Item, normalized, split_items
from tests.models.errors import error_of
from tests.models.tasks import saving_context

SENTENCES = [f"sentence number {i}" for i in range(30)]

Parts = namedtuple("Parts", "groups numbers named")


def load():
    raise AssertionError("a split reads no EEG")


def items():
    """Eight readers of the same sentences, in different spellings."""
    ways = [str.upper, str.title, "{}!".format, "  {} ".format, str, "{}.".format, str, str]
    return [
        Item(way(text), f"S{reader}", normalized(way(text)), 500, f"{reader} {text}", load)
        for reader, way in enumerate(ways)
        for text in SENTENCES
    ]


def sides(parts, key):
    found = items()
    return [{key(found[n]) for n in parts.numbers[name]} for name in SPLITS]


def test_no_sentence_is_in_two_splits_in_any_spelling():
    parts = Parts(*split_items(items(), "sentence", SplitRule(0.2)))
    train, val, test = sides(parts, lambda item: normalized(item.text))
    assert not train & val and not train & test and not val & test
    assert (len(train), len(val), len(test)) == (18, 6, 6)
    assert sum(map(len, parts.numbers.values())) == len(items())
    assert all(len(readers) == 8 for readers in sides(parts, lambda item: item.subject))


def test_readers_can_be_held_out():
    parts = Parts(*split_items(items(), "subject+sentence", SplitRule(0.2)))
    for key in (lambda item: item.subject, lambda item: item.group):
        train, val, test = sides(parts, key)
        assert not train & val and not train & test and not val & test
    assert [len(readers) for readers in sides(parts, lambda item: item.subject)] == [6, 1, 1]


def test_the_split_is_saved_in_the_run_folder_with_its_readers(tmp_path):
    rule = SplitRule(0.2)
    parts = Parts(*split_items(items(), "subject+sentence", rule))
    save_split(parts.named, saving_context(tmp_path))
    saved = json.loads((tmp_path / "split.json").read_text())
    assert sum(name.startswith("reader ") for name in saved["val"]) == 1
    save_split(parts.named, saving_context(tmp_path))
    with pytest.raises(DataError, match="has changed since this run started"):
        save_split(split_items(items(), "sentence", rule)[2], saving_context(tmp_path))


def test_readers_and_sentences_together_have_no_folds():
    error = error_of(split_items, items(), "subject+sentence", SplitRule(0.2, fold="1/2"))
    assert error.message == "data.fold 1/2 cannot be cut: both readers and sentences are groups"
    assert error.fix == "--set data.split=sentence"
