"""A run in Python: opened again, used by its methods, in scripts, notebooks and threads."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

import gearshift
from gearshift.training.checkpoint.reader import open_checkpoint
from tests.launcher.custom_tasks import BODY, HEAD, LINE
from tests.runs.conftest import REQUESTS, environment

pytestmark = pytest.mark.usefixtures("here")

TINY = {"data.path": "mine.jsonl", "log.every": 1, "train.preview": False, "train.max_steps": 3}
TINY |= {"train.global_batch": 4, "train.micro_batch": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a few requests as training data."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mine.jsonl").write_text(REQUESTS)
    return folder


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield home
    torch.set_num_threads(before)


@pytest.fixture
def run(here):
    """A run of three steps, trained once."""
    if not (here / "run").exists():
        return gearshift.train("language:tiny", settings=TINY, out="run", console=False)
    return gearshift.open_run("run")


@pytest.mark.slow
def test_a_staged_run_is_opened_with_its_stages(tmp_path):
    out = {"out": tmp_path / "staged", "console": False}
    run = gearshift.train("language:tiny", "staged", settings=TINY, **out)
    found = gearshift.open_run(tmp_path / "staged")
    assert found == run and list(found.stages) == ["lower", "upper"]
    assert found.predict("what", max_tokens=2)[0].name == "prompt"
    (tmp_path / "staged" / "2-upper" / "result.json").unlink()
    assert gearshift.open_run(tmp_path / "staged").status == "killed"


def test_predictions_are_objects_for_texts_and_for_files(run):
    before = sorted(run.folder.rglob("*"))
    first, second = run.predict(["what is 3", "what is 4"], max_tokens=4)
    assert [first] == run.predict("what is 3", max_tokens=4)
    assert (first.name, second.files) == ("prompt", {})
    named = run.predict(["mine.jsonl"], max_tokens=1)
    assert [one.name for one in named[:2]] == ["mine-1", "mine-2"] and len(named) == 80
    assert run.predict([]) == []
    assert sorted(run.folder.rglob("*")) == before


def test_a_run_is_exported_and_resumed_in_its_folder_and_in_new_ones(run, tmp_path):
    folder = run.export("safetensors", tmp_path / "exported", checkpoint="last")
    assert folder == tmp_path / "exported" and (folder / "model.safetensors").is_file()
    with pytest.raises(gearshift.SettingsError, match="empty folder"):
        run.export("safetensors", tmp_path / "exported")
    longer, fork = {"train.max_steps": 4}, tmp_path / "fork"
    other = run.resume(settings=longer, reset="schedule", out=fork, console=False)
    assert (other.steps, other.folder) == (4, fork)
    assert run.resume(console=False).reason == "nothing to do"


@pytest.mark.slow
def test_an_evaluation_gives_and_records_the_metrics_of_the_split(run, tmp_path):
    again = gearshift.open_run(shutil.copytree("run", tmp_path / "copy", symlinks=True))
    results = []
    thread = threading.Thread(target=lambda: results.append(again.evaluate()))
    thread.start()  # as in a notebook: only the main thread may handle signals
    thread.join()
    assert results[0]["metrics"] == pytest.approx(again.metrics("eval")[-1]["metrics"])
    test = again.evaluate("test", checkpoint=3)
    assert (test["split"], test["step"], test["samples"]) == ("test", 3, 8)
    lines = (tmp_path / "copy" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["split"] for line in lines] == ["val", "test"]


NO_DATA = {"settings": {"data": {"path": "mien.jsonl"}}}
NO_SPLIT = {"settings": {**TINY, "eval.share": 0.9}, "model": "language:tiny", "out": "no"}
ARGUMENTS = [
    ({"engine": "zreo3"}, "train(): --engine zreo3", "--engine zero3"),
    ({"reset": "optimiser", "resume": "run"}, "train(): --reset optimiser", "--reset optimizer"),
    ({"nproc": 0}, "train(): --nproc 0", "--nproc 1"),
    ({"settings": {"optim.rl": 0.5}}, "train(): --set optim.rl=0.5", None),
    (NO_DATA, "train(): --set data.path=mien.jsonl", "--set data.path=mine.jsonl"),
    (NO_SPLIT, "train(): eval.share, data.fraction, data.path", "--set eval.share=0.1"),
    ({"mode": "staged", "settings": {"stages": ["lwer"]}}, "train(): --set stages=[\"lwer\"]", "--set stages=lower"),
]  # fmt: skip
"""What is given to `train`; the argument and the fix that the error names."""


def test_errors_name_the_arguments_and_the_line_of_the_command_line(run):
    for arguments, where, fix in ARGUMENTS:
        with pytest.raises(gearshift.SettingsError) as error:
            gearshift.train(**{"console": False, **arguments})
        found = error.value.diagnostics[0]
        assert (found.where, found.fix) == (where, fix)


CALLS = {
    "Run.metrics('trian')": lambda run: run.metrics("trian"),
    "Run.model(): --checkpoint bst": lambda run: run.model("bst"),
    "Run.evaluate(): --split tset": lambda run: run.evaluate("tset"),
    "Run.evaluate(): --data no.jsonl": lambda run: run.evaluate(data="no.jsonl"),
    "Run.predict(): --temperature -1": lambda run: run.predict(["a"], temperature=-1),
    "Run.predict()": lambda run: replace(run, folder=None).predict("a"),
    "Run.export(): --format hff": lambda run: run.export("hff"),
    "Run.resume(): --engine zeroo": lambda run: run.resume("zeroo"),
}


def test_errors_of_methods_name_their_arguments(run):
    for where, call in CALLS.items():
        with pytest.raises(gearshift.SettingsError) as error:
            call(run)
        assert error.value.diagnostics[0].where == where


def test_training_in_a_thread_with_a_running_loop_leaves_signals_alone(here, tmp_path):
    async def cell():
        await asyncio.sleep(0)
        run = gearshift.train("language:tiny", settings=TINY, out=tmp_path / "a", console=False)
        return run, await asyncio.to_thread(gearshift.open_run, tmp_path / "a")

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in handled]
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(cell())))
    thread.start()
    thread.join()
    [(run, opened)] = results
    assert run == opened and run.status == "completed"
    shutil.rmtree(tmp_path / "a")
    assert asyncio.run(cell())[0].status == "completed"  # the loop of the main thread
    assert [signal.getsignal(number) for number in handled] == before


SCRIPT = f"""{HEAD}{LINE}{BODY}
import gearshift

if __name__ == "__main__":
    run = gearshift.train(Line, nproc=2, settings={{"train.max_steps": 2}}, console=False)
    print(run.status, len(run.metrics("train")), *run.evaluate("val")["metrics"])
"""


def typed(folder, *args):
    command, options = [sys.executable, *args], {"capture_output": True, "text": True}
    return subprocess.run(command, cwd=folder, env=environment(), check=True, **options).stdout


@pytest.mark.slow
def test_a_class_of_a_script_is_found_later(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    assert typed(tmp_path, "script.py") == "completed 2 val_loss\n"
    [folder] = (tmp_path / "runs").iterdir()
    code = f"import gearshift; print(type(gearshift.open_run({str(folder)!r}).model()).__name__)"
    (tmp_path / "elsewhere").mkdir()
    assert typed(tmp_path / "elsewhere", "-c", code) == "Sequential\n"


def test_the_result_gives_metrics_and_the_trained_model(here, tmp_path, capsys):
    settings = {**TINY, "train.ema": 0.5, "save.every": 1, "save.keep_last": 3}
    run = gearshift.train(
        "language:tiny", "lite", "local", settings=settings, out=tmp_path / "a", console=False
    )
    assert capsys.readouterr().out == ""
    assert (run.status, run.steps, run.best["metric"]) == ("completed", 3, "val_loss")
    assert [line["step"] for line in run.metrics("train")] == [1, 2, 3]
    assert run.metrics("eval")[-1]["metrics"]["val_loss"] == run.best["value"]
    with pytest.raises(gearshift.SettingsError, match=r"allowed .* rank 0"):
        replace(run, folder=None).model()
    before = torch.get_rng_state()
    model = run.model("last")
    assert torch.equal(torch.get_rng_state(), before)
    found = open_checkpoint(run.folder / "last")
    assert not model.training
    assert {name for name, _ in model.named_parameters()} == set(found.names())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, found.tensor("ema", name))
    assert not torch.equal(run.model(1).lm_head.weight, model.lm_head.weight)
    best = run.model().lm_head.weight
    assert torch.equal(best, run.model(run.best["step"]).lm_head.weight)


LOOP = """
import gearshift

for out in ("first", "second"):
    gearshift.train(model="language:tiny", settings={"data.path": "mine.jsonl"}, out=out)
"""


@pytest.mark.slow
def test_ctrl_c_saves_the_run_and_ends_a_loop_of_runs(here, tmp_path, monkeypatch):
    shutil.copy("mine.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    here = tmp_path
    (here / "loop.py").write_text(LOOP)
    loop = [sys.executable, "-u", "loop.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(loop, **pipes) as running:
        for line in running.stdout:
            if line.startswith("step"):
                running.send_signal(signal.SIGINT)
                break
        rest = running.stdout.read()
    assert rest.rstrip().endswith("KeyboardInterrupt")
    assert (here / "first" / "last").exists()
    assert not (here / "second").exists()
