"""A trained model is used on prompts and on files."""

import json
from functools import cache, partial

import pytest
import torch

import gearshift
from gearshift.models.base import Sampling
from gearshift.models.language.config import SIZES
from gearshift.models.language.generate import generate
from gearshift.models.language.model import Transformer
from gearshift.models.language.tokenizer import ByteTokenizer
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.logging.encoding import printable
from tests.launcher import custom_tasks
from tests.launcher.custom_tasks import BODY, HEAD, LINE
from tests.launcher.saved_runs import checkpoint

ROWS = '{"prompt": "what is 7"}\n{"prompt": "what is 8", "response": "8"}\n'
# After six steps the likeliest token is the end.
SAMPLED = ("--max-tokens", "12", "--temperature", "1")


@pytest.fixture
def texts(said):
    """The generated texts of a command line, by --json."""

    def read(*args):
        return [one["text"] for one in said("predict", *args, *SAMPLED, "--json")["predictions"]]

    return read


@pytest.fixture(scope="module")
def expected(trained):
    """Gives the sampled answer of the averaged weights of a step."""
    return cache(partial(_answer, trained))


def _answer(run, step, text="what is 7"):
    found = open_checkpoint(checkpoint(run, step))
    model = Transformer(SIZES["tiny"]).eval()
    averages = {name: found.tensor("ema", name) for name in found.names()}
    model.load_state_dict(averages, strict=False)
    tokens = [257, *f"User: {text}\nAssistant: ".encode()]
    sampling = Sampling(max_tokens=12, temperature=1.0)
    found = "".join(generate(model, tokens, sampling, ByteTokenizer(), 128))
    assert found
    return found


def test_the_weights_that_were_evaluated_answer_a_request(run, expected, texts, said):
    words = (run, "--input", "what is 7", *SAMPLED)
    assert said("predict", *words) == f"{printable(expected(6))}\n"
    assert not (run / "predictions").exists()
    text = {"name": "prompt", "text": expected(6), "files": [], "dropped_tokens": 0}
    assert said("predict", *words, "--json") == {
        **{"checkpoint": str(checkpoint(run, 6)), "step": 6, "weights": "ema"},
        **{"device": "cpu", "folder": None, "predictions": [text]},
    }
    assert texts(run, "--input", "what is 7", "--checkpoint", 2) == [expected(2)] != [expected(6)]


def test_a_checkpoint_an_export_and_the_last_stage_give_one_answer(
    run, expected, texts, tmp_path, said
):
    said("export", run, "--format", "safetensors", "--out", tmp_path / "out")
    staged = tmp_path / "staged"
    staged.mkdir()
    stages = [{"name": "lower", "folder": "1-lower"}, {"name": "upper", "folder": "2-upper"}]
    (staged / "stages.json").write_text(json.dumps({"stages": stages}))
    for place in (run / "last", checkpoint(run, 6)):
        assert texts(place, "--input", "what is 7") == [expected(6)], place
    run.rename(staged / "2-upper")
    for place in (tmp_path / "out", staged):
        assert texts(place, "--input", "what is 7") == [expected(6)], place


def test_a_file_of_prompts_is_answered_into_a_file(run, expected, tmp_path, said):
    (tmp_path / "my rows.jsonl").write_text(ROWS)
    (run / "predictions").mkdir()
    (run / "predictions" / "mine.txt").write_text("mine")
    answers = [expected(6), expected(6, "what is 8")]
    shown = [printable(answer) for answer in answers]
    for _ in range(2):
        assert said("predict", run, "--input", tmp_path / "my rows.jsonl", *SAMPLED) == (
            f"my-rows-1: {shown[0]}\nmy-rows-2: {shown[1]}\nwrote {run}/predictions/my-rows.jsonl\n"
        )
    lines = (run / "predictions" / "my-rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": f"my-rows-{n}", "prompt": [{"role": "user", "content": text}], "text": answer}
        for n, text, answer in ((1, "what is 7", answers[0]), (2, "what is 8", answers[1]))
    ]
    assert {path.name for path in (run / "predictions").iterdir()} == {"mine.txt", "my-rows.jsonl"}
    assert not list(run.glob(".predictions*"))


PREDICT = """
    def setup_without_data(self):
        pass

    def predict(self, model, path):
        from gearshift.models.base import Prediction
        assert not model.training and not torch.is_grad_enabled()
        for number, line in enumerate(path.read_text().split()):
            value = model(torch.full((1, 2), float(line)))
            yield Prediction(f"line-{number}", f"{float(value):.6f}", {".txt": line.encode()})
"""


@pytest.fixture(scope="module")
def custom_run(tmp_path_factory):
    """A run of a custom task that predicts."""
    folder = tmp_path_factory.mktemp("custom")
    module = custom_tasks.write(folder, HEAD + LINE + BODY + PREDICT)
    settings = {"train.max_steps": 2, "model.folder": str(folder), "eval.every": None}
    out = folder / "able"
    gearshift.train(model=f"{module}:Line", settings=settings, out=out, console=False)
    return out


def test_a_custom_task_predicts_files(custom_run, tmp_path, said):
    (tmp_path / "in.txt").write_text("1 2")
    out = tmp_path / "out"
    lines = said("predict", custom_run, "--input", tmp_path / "in.txt", "--out", out)
    first, second, last = lines.splitlines()
    found = open_checkpoint(custom_run / "last")
    weights = {name: found.tensor("weight", name) for name in found.names()}
    for line, value in (("1", first), ("2", second)):
        hidden = torch.relu(weights["0.weight"] @ torch.full((2,), float(line)) + weights["0.bias"])
        answer = weights["2.weight"] @ hidden + weights["2.bias"]
        assert float(value) == pytest.approx(float(answer), abs=1e-5)
    assert last == f"wrote 2 files to {out}"
    assert {p.name: p.read_text() for p in out.iterdir()} == {"line-0.txt": "1", "line-1.txt": "2"}
