"""The data of experiences as ranks load it; fitted values come from the first data."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gearshift.launcher.config.check import TrackedSettings
from gearshift.launcher.config.schema import task_class
from gearshift.launcher.continual.loop import make_folder
from gearshift.launcher.run.experience import load_experience, resolve_experience
from gearshift.launcher.run_folder.experiences import task_folder
from gearshift.launcher.run_folder.run_plan import ExperienceSpec
from gearshift.models.base import Context, DataError
from gearshift.models.common.split import load_sides
from tests.launcher.given import resolved
from tests.training.tiny import one_rank


def text(path, vocabulary, seed):
    draws = random.Random(seed)
    path.write_text(" ".join(draws.choice(vocabulary.split()) for _ in range(400)))


def request(path, seed):
    lines = [json.dumps({"prompt": f"{seed} {i}", "response": f"{i}"}) for i in range(30)]
    path.write_text("\n".join(lines))


@dataclass
class ContinualRun:
    """A run folder, the folder that it watches, and its experiences."""

    folder: Path
    source: Path
    sets: tuple[str, ...]
    numbers: int = 0

    def add(self, *names):
        """Add an experience with the files `names`."""
        make_folder(self.folder, self.numbers, self.source, names)
        self.numbers += 1
        return self.numbers - 1

    def load(self, replay=0.5, least=1):
        """The data of a rank that trains on the newest experience."""
        recorded = {"replay": replay, "min_samples": least, "epochs": 1.0, "max_steps": None}
        recorded |= {"lr_scale": 0.5, "warmup": "5%"}
        spec = ExperienceSpec(self.folder, range(self.numbers), recorded)
        run = resolved(*self.sets, data=str(self.source))
        view = TrackedSettings(resolve_experience(run, spec).settings)
        context = Context(0, 0.2, self.folder, torch.device("cpu"))
        first = task_class(view.model.family)(view.model, view.data, context)
        first.setup()
        if not spec.number:
            return [first], first.data("train")
        return load_experience(spec, first, context, run.settings, one_rank())


@pytest.fixture
def new_run(tmp_path):
    def build(*sets):
        for name in ("run", "data"):
            (tmp_path / name).mkdir()
        return ContinualRun(tmp_path / "run", tmp_path / "data", sets)

    return build


def texts(run, letter, vocabulary, count):
    names = [f"{letter}{i}.txt" for i in range(count)]
    for i, name in enumerate(names):
        text(run.source / name, vocabulary, i)
    return names


@pytest.fixture
def of_text(new_run):
    """A run on text with an experience of ten files."""
    run = new_run("data.seq_len=16")
    run.add(*texts(run, "a", "alpha beta", 10))
    return run


def test_new_text_uses_the_tokenizer_of_the_first_data(new_run):
    run = new_run("model.tokenizer=bpe", "data.seq_len=16")
    run.add(*texts(run, "a", "alpha beta gamma delta", 10))
    run.load()
    fitted = sorted(path.name for path in run.folder.iterdir() if path.is_file())
    before = {name: (run.folder / name).read_bytes() for name in fitted}
    run.add(*texts(run, "b", "zzz qqq xxx", 4))
    (first, new), _ = run.load()
    old, added = first.tokenizer, new.tokenizer
    assert list(added.encode("zzz alpha")) == list(old.encode("zzz alpha"))
    assert {name: (run.folder / name).read_bytes() for name in fitted} == before
    saved = task_folder(run.folder, 1)
    for name in fitted:
        if name != "split.json":
            assert (saved / name).read_bytes() == before[name]


def test_replay_gives_its_share_beside_new_data_without_a_bad_file(of_text):
    (of_text.source / "bad.txt").write_bytes(b"\xff\xfe\x00 no text \x00\xff")
    of_text.add(*texts(of_text, "b", "gamma delta", 4), "bad.txt")
    tasks, train = of_text.load(replay=0.5)
    assert len(train) == 2 * len(tasks[1].data("train"))
    assert [len(task.data("val")) > 0 for task in tasks] == [True, True]


def test_a_group_seen_again_stays_in_its_split(new_run):
    run = new_run()
    for i in range(3):
        request(run.source / f"a{i}.jsonl", i)
    run.add(*[f"a{i}.jsonl" for i in range(3)])
    run.load()
    again = "".join((run.source / f"a{i}.jsonl").read_text() + "\n" for i in range(3))
    request(run.source / "new.jsonl", 9)
    (run.source / "b.jsonl").write_text(again + (run.source / "new.jsonl").read_text())
    run.add("b.jsonl")
    run.load()
    before, after = load_sides(run.folder), load_sides(task_folder(run.folder, 1))
    shared = before.keys() & after.keys()
    assert len(shared) > 80 and len(after) > len(shared)
    assert {group: after[group] for group in shared} == {g: before[g] for g in shared}


@pytest.mark.parametrize(
    ("count", "least", "message"),
    [
        (4, 10_000, "continual.min_samples is 10000"),
        (0, 1, "the new data is conversations, but the run trains on text"),
    ],
)
def test_too_little_new_data_or_data_of_another_kind_is_an_error(of_text, count, least, message):
    request(of_text.source / "b.jsonl", 1)
    of_text.add(*(texts(of_text, "b", "gamma delta", count) or ["b.jsonl"]))
    with pytest.raises(DataError, match=message):
        of_text.load(least=least)


def test_new_texts_of_one_line_are_enough_unless_they_are_short(of_text):
    of_text.add(*texts(of_text, "b", "gamma delta", 2))
    _, split = of_text.load()
    assert len(split) > 0
    (of_text.source / "c.txt").write_text("gamma")
    of_text.add("c.txt")
    with pytest.raises(DataError, match="would be empty"):
        of_text.load()


def test_a_reader_that_fails_on_new_files_is_a_data_error(of_text, monkeypatch):
    of_text.add(*texts(of_text, "b", "gamma delta", 4))
    setup = task_class("language").setup

    def broken(task):
        if task.context.earlier_splits is not None:
            raise ZeroDivisionError("in a reader")
        setup(task)

    monkeypatch.setattr(task_class("language"), "setup", broken)
    with pytest.raises(DataError, match="cannot be read: ZeroDivisionError: in a reader"):
        of_text.load()
