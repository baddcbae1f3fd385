"""Where a sample is too long, the fix names the length that fits, and works when it is pasted."""

import json
import re

import pytest
import torch

from models.base import Context, DataError
from models.language.config import Data, Model
from models.language.task import LanguageTask


def task(path, **settings):
    context = Context(0, 0.2, None, torch.device("cpu"))
    return LanguageTask(Model(size="tiny"), Data(path=str(path), **settings), context)


def chats(path, answers, prompt="q"):
    rows = ({"prompt": f"{prompt} {i}", "completion": a} for i, a in enumerate(answers))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def length_of(path):
    """The length in the fix of the error for a task with the data."""
    with pytest.raises(DataError) as error:
        task(path).setup()
    fix = error.value.fix
    assert fix.startswith("fit all:  --seq-len ")
    return int(re.findall(r"--seq-len (\d+)", fix)[0]), fix


@pytest.mark.parametrize("words", [11, 1000])
def test_answers_above_the_context_name_the_length_that_fits_all_splits(tmp_path, words):
    answers = [f"{'answer word ' * words}{i * '.'}" for i in range(30)]
    path = chats(tmp_path / "a.jsonl", answers)
    length, _ = length_of(path)
    assert 12 * words <= length <= 12 * words + 80
    fits = task(path, seq_len=length)
    fits.setup()
    assert sum(len(fits.data(split)) for split in ("train", "val", "test")) == 30
    assert fits.facts()["truncated_prompts"] == fits.facts()["skipped_rows"] == 0
    with pytest.raises(DataError):  # no shorter one is proposed
        task(path, seq_len=12 * words).setup()


def test_one_long_answer_may_also_be_skipped_and_long_requests_are_cut(tmp_path):
    path = chats(tmp_path / "a.jsonl", ["short"] * 30 + ["long " * 400])
    length, fix = length_of(path)
    assert fix.endswith("  or skip them with  --set data.on_bad=skip")
    for settings in ({"seq_len": length}, {"on_bad": "skip"}):
        task(path, **settings).setup()
    path = chats(tmp_path / "a.jsonl", ["x" * 200] * 30, prompt="word " * 5000)
    length, _ = length_of(path)
    assert length == 208  # not that of the requests
    fits = task(path, seq_len=length)
    fits.setup()
    assert fits.facts()["truncated_prompts"] == 30
    whole = int(fits.facts()["warning"].partition("--seq-len ")[2])
    for length, cut in ((whole, 0), (whole - 8, 30)):
        again = task(path, seq_len=length)
        again.setup()
        assert again.facts()["truncated_prompts"] == cut
        assert ("warning" in again.facts()) == (cut > 0)
