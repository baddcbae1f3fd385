"""Unlabeled text, then conversations, as whole command lines: data, weights, tokenizer."""

import json

import pytest

from tests.runs.conftest import Program, result, weights

pytestmark = pytest.mark.slow
STAGED = ("--model", "language:tiny", "--mode", "staged")
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "log.every=1")
FROZEN = ("model.embed_tokens.", "model.layers.0.")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus of text, and with conversations."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "corpus").mkdir()
    for number in range(40):
        text = f"The answer to {number} is {number % 7}. " * 12
        (folder / "corpus" / f"{number}.txt").write_text(text)
    rows = [json.dumps({"prompt": f"add {n}", "response": f"it is {n % 7}"}) for n in range(60)]
    (folder / "dialogues.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def staged_run(home):
    """Both stages in one command, with a tokenizer of the text."""
    both = ("--data", "dialogues.jsonl", "--set", "data.text=corpus")
    bpe = ("--set", "model.tokenizer=bpe", "--set", "model.vocabulary=320")
    done = Program(home)(*STAGED, *SHORT, *both, *bpe, "--out", "x")
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stderr
    return home / "x"


def test_each_stage_reads_its_own_data(staged_run):
    first, second = (result(staged_run / name)["data"] for name in ("1-text", "2-dialogues"))
    assert (first["source"], first["kind"]) == ("corpus", "text")
    assert (second["source"], second["kind"]) == ("dialogues.jsonl", "conversations")


def test_the_tokenizer_is_that_of_the_text(staged_run):
    first, second = (staged_run / n / "tokenizer.json" for n in ("1-text", "2-dialogues"))
    assert json.loads(first.read_text()) == json.loads(second.read_text())


def test_lower_layers_are_those_of_the_first_stage_and_upper_ones_are_not(staged_run):
    first, second = weights(staged_run / "1-text"), weights(staged_run / "2-dialogues")
    loaded = result(staged_run / "2-dialogues")["data"]["start"]
    assert loaded.startswith(f"loaded {len(first)}/{len(first)} tensors")
    assert {n for n in first if first[n].equal(second[n])} == {
        n for n in first if n.startswith(FROZEN)
    }


@pytest.mark.parametrize("stage", ["1-text", "2-dialogues"])
def test_a_stage_replays_and_exports(home, staged_run, stage):
    verified = Program(home)("verify", f"x/{stage}")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    done = Program(home)("export", f"x/{stage}", "--format", "hf", "--out", f"exported-{stage}")
    assert done.returncode == 0, done.stderr


def test_the_second_stage_trains_under_another_engine(home, staged_run):
    bpe = ("--set", "model.tokenizer=bpe", "--set", "model.vocabulary=320")
    args = ("--data", "dialogues.jsonl", "--stage", "dialogues", "--from", "x")
    sharded = ("--engine", "fsdp", "--nproc", "2", "--out", "sharded")
    done = Program(home)(*STAGED, *SHORT, *bpe, *args, *sharded)
    assert done.returncode == 0, done.stderr
    first, second = weights(staged_run / "1-text"), weights(home / "sharded")
    assert all(second[n].equal(t) for n, t in first.items() if n.startswith(FROZEN))


def test_the_command_of_the_next_stage_leaves_out_the_text(home):
    args = (*STAGED, *SHORT, "--stage", "text", "--set", "data.text=corpus", "--out", "alone")
    done = Program(home)(*args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(
        "--model language:tiny --mode staged --stage dialogues --from alone"
    )


def test_the_stages_without_data_use_embedded_text_and_commands(home):
    program = Program(home)
    shown = program(*STAGED, *SHORT, "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    stages = json.loads(shown.stdout)["stages"]
    assert [stage["name"] for stage in stages] == ["text", "dialogues"]
