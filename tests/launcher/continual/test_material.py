"""The parts of the data as the ranks read them: each by itself, what was fitted from the first."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launcher.config.task_class import set_up, task_class
from launcher.config.unused_settings import Taken
from launcher.continual import folders, lesson, material
from launcher.continual.lesson import Lesson
from models.base import Context, DataError
from models.common.split import sides
from tests.launcher.given import resolved
from tests.training.tiny import one_rank

HEAD = ":RUN-3\tLEVEL SWEEP\t\r:FREQ: 16.00\tREP RATE (/sec): 40\tSAMPLE (µsec): 10\t\r"
"""Of a level series as the EPL test suite writes it."""


def text(path: Path, words: str, seed: int) -> None:
    draws = random.Random(seed)
    path.write_text(" ".join(draws.choice(words.split()) for _ in range(400)))


def request(path: Path, seed: int) -> None:
    lines = [json.dumps({"prompt": f"{seed} {i}", "response": f"{i}"}) for i in range(30)]
    path.write_text("\n".join(lines))


def series(path: Path, scale: float, seed: int) -> None:
    data = scale * np.random.default_rng(seed).standard_normal((1000, 3))
    rows = ["\t".join(f"{value: .6f}" for value in row) for row in data]
    told = f"{HEAD}:LEVELS:20;40;60;\t\r:DATA\r" + "\r\n".join(rows) + "\r\n\r"
    path.write_bytes(told.encode("iso-8859-1"))


@dataclass
class House:
    """A run folder, the folder that it watches, and the parts that it has taken."""

    run: Path
    source: Path
    sets: tuple[str, ...]
    model: str
    share: float = 0.2
    numbers: int = 0

    def take(self, *names: str) -> int:
        """The next part is the files `names`."""
        folders.lay(self.run, self.numbers, self.source, names, "link")
        self.numbers += 1
        return self.numbers - 1

    def gather(self, replay: float = 0.5, least: int = 1) -> material.Material:
        """What a rank makes of all parts."""
        parts = [folders.part(self.run, number) for number in range(self.numbers)]
        how = {"replay": replay, "min_samples": least, "epochs": 1.0, "max_steps": None}
        how |= {"lr_scale": 0.5, "warmup": "5%"}
        told = Lesson(self.numbers - 1, parts, how)
        found = resolved(*self.sets, model=self.model, data=str(self.source)).settings
        view: Any = Taken(lesson.view(found, told))
        context = Context(0, self.share, self.run, torch.device("cpu"))
        first = task_class(view.model.family)(view.model, view.data, context)
        set_up(first, one_rank())
        return material.gather(told, first, context, found, one_rank())


@pytest.fixture
def house(tmp_path):
    def build(*sets: str, model: str = "language:tiny", share: float = 0.2) -> House:
        for name in ("run", "data"):
            (tmp_path / name).mkdir()
        return House(tmp_path / "run", tmp_path / "data", sets, model, share)

    return build


def texts(house: House, letter: str, words: str, count: int) -> list[str]:
    names = [f"{letter}{i}.txt" for i in range(count)]
    for i, name in enumerate(names):
        text(house.source / name, words, i)
    return names


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_new_text_is_read_by_the_tokenizer_of_the_first(house, tokenizer):
    home = house(f"model.tokenizer={tokenizer}", "data.seq_len=16")
    home.take(*texts(home, "a", "alpha beta gamma delta", 10))
    home.gather()
    fitted = sorted(path.name for path in home.run.iterdir() if path.is_file())
    before = {name: (home.run / name).read_bytes() for name in fitted}
    home.take(*texts(home, "b", "zzz qqq xxx", 4))
    first, new = home.gather().tasks
    one, other = first.dataset.tokenizer, new.dataset.tokenizer
    assert list(other.encode("zzz alpha")) == list(one.encode("zzz alpha"))
    assert {name: (home.run / name).read_bytes() for name in fitted} == before
    kept = folders.part(home.run, 1).kept
    for name in fitted:
        if name != "split.json":
            assert (kept / name).read_bytes() == before[name]


def test_what_was_fitted_on_the_first_patients_holds_for_the_next(house):
    home = house("data.split=patient", model="abr:tiny", share=0.1)
    for i in range(12):
        series(home.source / f"ABR-{i}-1", 1.0, i)
    home.take(*[f"ABR-{i}-1" for i in range(12)])
    home.gather()
    for i in range(20, 24):
        series(home.source / f"ABR-{i}-1", 50.0, i)
    home.take(*[f"ABR-{i}-1" for i in range(20, 24)])
    first, new = home.gather().tasks
    assert new.dataset.statistics == first.dataset.statistics
    assert new.terms == first.terms
    old, late = (
        float(np.abs(task.data("train").sample(0, None)["signal"]).mean()) for task in (first, new)
    )
    assert late > 20 * old  # by the scale of the first ones


def test_half_of_an_epoch_is_of_older_data_and_each_part_keeps_its_own_held_out(house):
    home = house("data.seq_len=16")
    home.take(*texts(home, "a", "alpha beta", 10))
    home.take(*texts(home, "b", "gamma delta", 4))
    found = home.gather(replay=0.5)
    new = len(found.tasks[1].data("train"))
    assert len(found.train) == 2 * new
    assert found.notes == [f"experience 1: {new} new samples an epoch, and {new} of older data"]
    assert [len(task.data("val")) > 0 for task in found.tasks] == [True, True]


def test_a_group_that_comes_again_stays_on_its_side(house):
    home = house()
    for i in range(3):
        request(home.source / f"a{i}.jsonl", i)
    home.take(*[f"a{i}.jsonl" for i in range(3)])
    home.gather()
    again = "".join((home.source / f"a{i}.jsonl").read_text() + "\n" for i in range(3))
    request(home.source / "new.jsonl", 9)
    (home.source / "b.jsonl").write_text(again + (home.source / "new.jsonl").read_text())
    home.take("b.jsonl")
    home.gather()
    before, after = sides(home.run), sides(folders.part(home.run, 1).kept)
    shared = before.keys() & after.keys()
    assert len(shared) > 80 and len(after) > len(shared)
    assert {group: after[group] for group in shared} == {g: before[g] for g in shared}


def test_a_bad_file_among_good_ones_is_left_out(house):
    home = house("data.seq_len=16")
    home.take(*texts(home, "a", "alpha beta", 10))
    names = texts(home, "b", "gamma delta", 4)
    (home.source / "bad.txt").write_bytes(b"\xff\xfe\x00 no text \x00\xff")
    home.take(*names, "bad.txt")
    assert len(home.gather().tasks[1].data("train")) > 0


@pytest.mark.parametrize(
    ("count", "least", "told"),
    [(2, 1, "would be empty"), (4, 10_000, "continual.min_samples is 10000")],
)
def test_what_is_too_little_is_told(house, count, least, told):
    home = house("data.seq_len=16")
    home.take(*texts(home, "a", "alpha beta", 10))
    home.take(*texts(home, "b", "gamma delta", count))
    with pytest.raises(DataError, match=told):
        home.gather(least=least)


def test_data_of_another_kind_is_refused(house):
    home = house("data.seq_len=16")
    home.take(*texts(home, "a", "alpha beta", 10))
    request(home.source / "b.jsonl", 1)
    home.take("b.jsonl")
    with pytest.raises(DataError, match="the data is conversations, and the run learns text"):
        home.gather()


def test_a_reader_that_breaks_on_new_files_is_told_as_wrong_data(house, monkeypatch):
    home = house("data.seq_len=16")
    home.take(*texts(home, "a", "alpha beta", 10))
    home.take(*texts(home, "b", "gamma delta", 4))
    setup = task_class("language").setup

    def broken(task):
        if task.context.earlier is not None:
            raise ZeroDivisionError("in a reader")
        setup(task)

    monkeypatch.setattr(task_class("language"), "setup", broken)
    with pytest.raises(DataError, match="cannot be read: ZeroDivisionError: in a reader"):
        home.gather()
