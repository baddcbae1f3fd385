"""Whole command lines that train on several sources of data."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from tests.runs.conftest import lines, losses
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCES = ("--data", "code/train.jsonl", "--data", "prose/train.jsonl")
SETS = {
    "data.weights": "[0.7, 0.3]",
    "model.size": "tiny",
    "train.max_steps": "8",
    "train.preview": "false",
    "train.global_batch": "12",
    "save.every": "2",
    "save.keep_last": "9",
    "eval.every": "2",
    "log.every": "1",
}
OPTIONS = [arg for key, value in SETS.items() for arg in ("--set", f"{key}={value}")]
FIRST = (*SOURCES, *OPTIONS, "--nproc", "1")
STEP_4 = "x/checkpoints/step-00000004"
LAST = "checkpoints/step-00000008/model.safetensors"


def texts(word, count):
    return "".join(f'{{"text": "{word} {i} {word * (i % 7)}"}}\n' for i in range(count))


def write(folder):
    """Two sources of the same file name: a large one, and one that 8 steps take more than once."""
    for name, count in (("code", 400), ("prose", 120)):
        (folder / name).mkdir()
        (folder / name / "train.jsonl").write_text(texts(name, count))
    (folder / "chat.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of eight steps with checkpoints of 2, 4, 6 and 8."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*FIRST, "--out", "x"]) == 0
    return folder


@pytest.fixture
def here(run, trained, tmp_path):
    """The command line in a copy of the folder of that run."""
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    return run


def history(folder):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines(folder)]


def evaluations(folder):
    return [line["metrics"] for line in lines(folder, "eval")]


def wrong(run, capsys, *args):
    """The errors of a command line that is refused and writes nothing."""
    before = sorted(Path().rglob("*"))
    code, out, _ = run(*args, "--json")
    assert code == 2
    assert sorted(Path().rglob("*")) == before
    return json.loads(out)["diagnostics"]


def test_a_mixture_resumes_bit_by_bit(here):
    code, _, error = here("resume", STEP_4, "--out", "y", "--set", "loader.workers=1")
    assert code == 0, error
    assert history(Path("y")) == history(Path("x"))
    assert evaluations(Path("y")) == evaluations(Path("x"))
    assert (Path("y") / LAST).read_bytes() == (Path("x") / LAST).read_bytes()


@pytest.mark.slow
def test_the_evaluation_has_the_loss_of_each_source_and_of_all(here):
    code, out, error = here("evaluate", "x", "--split", "val", "--json")
    assert code == 0, error
    whole = json.loads(out)["metrics"]
    assert whole == evaluations(Path("x"))[-1]
    for number, name in enumerate(("code", "prose"), start=1):
        data = ("--data", f"{name}/train.jsonl")
        code, out, error = here("evaluate", "x", "--split", "val", *data, "--json")
        assert code == 0, error
        alone = json.loads(out)["metrics"]["val_loss"]
        # The split of a source is that of the run, and its loss to the last bits, too.
        assert whole[f"val_loss_train-{number}"] == pytest.approx(alone, rel=1e-6)
        assert whole["val_loss"] != pytest.approx(alone, rel=1e-3)


def test_another_weight_or_source_needs_another_data_order(here, capsys):
    other = ("--set", "data.weights=[0.5, 0.5]")
    fewer = ("--data", "code/train.jsonl", "--set", "data.weights=null")
    for change, keys in ((other, ["data.weights"]), (fewer, ["data.path", "data.weights"])):
        diagnostics = wrong(here, capsys, "resume", STEP_4, *change)
        assert [each["key"] for each in diagnostics] == keys
        assert all("--reset data" in " ".join(each["fix"]) for each in diagnostics)
        assert all(each["where"] for each in diagnostics)
    code, out, error = here("resume", STEP_4, *other, "--reset", "data", "--out", "y")
    assert code == 0, error
    assert "data.weights [0.7, 0.3] → [0.5, 0.5]" in out
    assert history(Path("y"))[:4] == history(Path("x"))[:4]
    assert history(Path("y"))[4:] != history(Path("x"))[4:]


BOTH = ("--data", "code/train.jsonl", "--data", "prose/train.jsonl")
BAD = {
    "too few": ((*BOTH, "--set", "data.weights=[1]"), "data.weights"),
    "too many": ((*BOTH, "--set", "data.weights=[1, 2, 3]"), "data.weights"),
    "negative": ((*BOTH, "--set", "data.weights=[-1, 2]"), "data.weights"),
    "no sum": ((*BOTH, "--set", "data.weights=[0, 0]"), "data.weights"),
    "infinite": ((*BOTH, "--set", "data.weights=[.inf, 1]"), "data.weights"),
    "an infinite sum": ((*BOTH, "--set", "data.weights=[1e308, 1e308]"), "data.weights"),
    "one source": (("--data", "chat.jsonl", "--set", "data.weights=[1]"), "data.weights"),
    "twice": ((*BOTH, "--data", "./code/train.jsonl"), "data.path"),
    "no source": (("--set", "data.path=[]"), "data.path"),
    "no file": ((*BOTH, "--data", "prose/trains.jsonl"), "data.path"),
    "answers": ((*BOTH, "--set", "data.answers=chat.jsonl"), "data.answers"),
    "a control": ((*BOTH, "--set", "data.control=noise"), "data.control"),
    "a watched folder": (
        ("--data", "code", "--data", "prose", "--continuous-learning"),
        "data.path",
    ),
    "another family": (("--model", "abr:tiny", *BOTH), "data.path"),
    "another family, by a setting": (
        ("--model", "event_seg:tiny", "--set", "data.path=[code, prose]"),
        "data.path",
    ),
}


@pytest.mark.parametrize(("args", "key"), BAD.values(), ids=BAD)
def test_what_is_no_mixture_is_refused(run, capsys, args, key):
    write(Path())
    [diagnostic] = wrong(run, capsys, *args, "--out", "x")
    assert diagnostic["key"] == key
    assert diagnostic["where"] and (diagnostic["allowed"] or diagnostic["fix"])


def test_text_beside_conversations_is_refused(run):
    write(Path())
    code, out, _ = run("--data", "code", "--data", "chat.jsonl", "--out", "x", "--json")
    assert code == 2 and "data.path" in json.loads(out)["error"]
    assert not Path("x").exists()


@pytest.mark.slow
def test_a_killed_mixture_and_one_on_three_ranks_go_on_as_if_nothing_had_happened(program, trained):
    shutil.copytree(trained, program.folder, symlinks=True, dirs_exist_ok=True)
    arguments = (*FIRST, "--set", "engine.threads=1", "--resume", "auto", "--out", "killed")
    process = program.start(*arguments)
    folder = program.folder / "killed"
    until(lambda: (folder / "checkpoints" / "step-00000002").is_dir(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / LAST).exists()
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    assert history(folder) == history(program.folder / "x")
    assert (folder / LAST).read_bytes() == (program.folder / "x" / LAST).read_bytes()

    done = program("resume", STEP_4, "--nproc", "3", "--engine", "ddp", "--out", "three")
    assert done.returncode == 0, done.stderr
    three = program.folder / "three"
    assert losses(three) == pytest.approx(losses(program.folder / "x"), rel=1e-4)
    pairs = zip(evaluations(three), evaluations(program.folder / "x"), strict=True)
    for several, one in pairs:
        assert several == pytest.approx(one, rel=1e-3)
