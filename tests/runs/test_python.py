"""A run in Python: opened again, used by its methods, in scripts, notebooks and threads."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import launcher
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.runs.conftest import REQUESTS, environment
from training.checkpoint.reader import open_checkpoint

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
        return launcher.train("language:tiny", settings=TINY, out="run", console=False)
    return launcher.open_run("run")


@pytest.mark.slow
def test_a_staged_run_is_opened_with_its_stages(tmp_path):
    settings = {key: value for key, value in TINY.items() if key != "data.path"}
    out = {"out": tmp_path / "staged", "console": False}
    run = launcher.train("language:tiny", "staged", settings=settings, **out)
    found = launcher.open_run(tmp_path / "staged")
    assert found == run and list(found.stages) == ["lower", "upper"]
    assert found.predict("what", max_tokens=2)[0].name == "prompt"
    (tmp_path / "staged" / "2-upper" / "result.json").unlink()
    assert launcher.open_run(tmp_path / "staged").status == "killed"


def test_what_is_no_run_folder_is_one_error(run):
    for name, message in (
        ("nothing", "run folder 'nothing' does not exist"),
        (".", "'.' is not a run folder"),
        ("run/best", "'run/best' is not a run folder"),
    ):
        with pytest.raises(launcher.SettingsError) as error:
            launcher.open_run(name)
        [found] = error.value.diagnostics
        assert found.message.startswith(message) and found.where == "open_run()"


def test_predictions_are_objects_for_texts_and_for_files(run):
    before = sorted(run.folder.rglob("*"))
    first, second = run.predict(["what is 3", "what is 4"], max_tokens=4)
    assert [first] == run.predict("what is 3", max_tokens=4)
    assert (first.name, second.files) == ("prompt", {})
    named = run.predict(["mine.jsonl"], max_tokens=1)
    assert [one.name for one in named[:2]] == ["mine-1", "mine-2"] and len(named) == 80
    assert run.predict([]) == []
    assert sorted(run.folder.rglob("*")) == before


PREDICTS = """\
    saved_files = ()

    def setup_without_data(self):
        pass

    def predict(self, model, path):
        from models.base import Prediction
        value = float(path.read_text())
        yield Prediction(path.stem, str(value), {".txt": b"%f" % model(torch.ones(1, 2)).item()})

"""


def test_predictions_of_files_have_their_content(here, tmp_path):
    (here / "reads_files.py").write_text(HEAD + LINE + PREDICTS + BODY)
    run = launcher.train("reads_files:Line", out=tmp_path / "run", console=False)
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("0.5")
    found = run.predict([tmp_path / "one.txt", str(tmp_path / "two.txt")])
    assert [(one.name, one.text) for one in found] == [("one", "0.5"), ("two", "0.5")]
    expected = run.model()(torch.ones(1, 2)).item()
    assert float(found[0].files[".txt"]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(launcher.SettingsError, match=r"Run.predict\(top_k='3'\)"):
        run.predict(tmp_path / "one.txt", top_k=3)
    with pytest.raises(launcher.SettingsError, match=r"Run.predict\(inputs='none'\)"):
        run.predict(["none"])


def test_a_run_is_exported_and_resumed_in_its_folder_and_in_new_ones(run, tmp_path):
    folder = run.export("safetensors", tmp_path / "exported", checkpoint="last")
    assert folder == tmp_path / "exported" and (folder / "model.safetensors").is_file()
    with pytest.raises(launcher.SettingsError, match="is not empty"):
        run.export("safetensors", tmp_path / "exported")
    longer, fork = {"train.max_steps": 4}, tmp_path / "fork"
    other = run.resume(settings=longer, reset="schedule", out=fork, console=False)
    assert (other.steps, other.folder) == (4, fork)
    assert run.resume(console=False).reason == "nothing to do"


@pytest.mark.slow
def test_an_evaluation_gives_and_records_the_metrics_of_the_split(run, tmp_path):
    again = launcher.open_run(shutil.copytree("run", tmp_path / "copy", symlinks=True))
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
    ({"engine": "zeroo"}, "train(engine='zeroo')", "--engine zero3"),
    ({"reset": "optimiser", "resume": "run"}, "train()", "--reset optimizer"),
    ({"nproc": 0}, "train(nproc=0)", "--nproc 1"),
    ({"nproc": "2"}, "train(nproc='2')", None),
    ({"model": 3}, "train(model=3)", None),
    ({"config": "no.yaml"}, "train()", None),
    ({"settings": [1]}, "train(settings=[1])", None),
    ({"settings": {"seed": {3}}}, "train(settings={'seed': {3}})", None),
    ({"settings": {"optim.rl": 0.5}}, "train(settings={'optim.rl': '0.5'})", "--set optim.lr=0.5"),
    (NO_DATA, "train(settings={'data.path': 'mien.jsonl'})", "--set data.path=mine.jsonl"),
    (NO_SPLIT, "eval.share, data.fraction, data.path", "--set eval.share=0.49"),
    ({"mode": "staged", "settings": {"stages": ["lwer"]}}, "train(settings={'stages': ['lwer']})", "--set 'stages=[lower]'"),
    ({"modle": "abr"}, "train(modle='abr')", "model='abr'"),
    ({"epochs": 3}, "train(epochs=3)", "settings={'train.epochs': 3}"),
    ({"frobnicate": True}, "train(frobnicate=True)", None),
]  # fmt: skip
"""What is given to `train`; the argument and the fix that the error names."""


def test_errors_name_the_arguments_and_the_line_of_the_command_line(run):
    for arguments, where, fix in ARGUMENTS:
        with pytest.raises(launcher.SettingsError) as error:
            launcher.train(**{"console": False, **arguments})
        found = error.value.diagnostics[0]
        assert (found.where, found.fix) == (where, fix)


CALLS = {
    "Run.metrics('trian')": lambda run: run.metrics("trian"),
    "Run.model()": lambda run: run.model("bst"),
    "Run.evaluate(split='tset')": lambda run: run.evaluate("tset"),
    "Run.evaluate(split=3)": lambda run: run.evaluate(3),
    "Run.evaluate(data='no.jsonl')": lambda run: run.evaluate(data="no.jsonl"),
    "Run.predict(temperature='-1')": lambda run: run.predict(["a"], temperature=-1),
    "Run.predict(inputs='./a/b.txt')": lambda run: run.predict(["./a/b.txt"]),
    "Run.predict(inputs=3)": lambda run: run.predict(3),
    "Run.predict(inputs[1]=3)": lambda run: run.predict(["a", 3]),
    "Run.predict(inputs[0]=97)": lambda run: run.predict(b"abc"),
    "Run.predict()": lambda run: replace(run, folder=None).predict("a"),
    "Run.export(format='hff')": lambda run: run.export("hff"),
    "Run.resume(engine='zeroo')": lambda run: run.resume("zeroo"),
    "open_run(folder=3)": lambda run: launcher.open_run(3),
}


def test_errors_of_methods_name_their_arguments(run):
    for where, call in CALLS.items():
        with pytest.raises(launcher.SettingsError) as error:
            call(run)
        assert error.value.diagnostics[0].where == where


def test_training_in_a_thread_with_a_running_loop_leaves_signals_alone(here, tmp_path):
    async def cell():
        await asyncio.sleep(0)
        run = launcher.train("language:tiny", settings=TINY, out=tmp_path / "a", console=False)
        return run, await asyncio.to_thread(launcher.open_run, tmp_path / "a")

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
import sys
import launcher

def main(nproc):
    try:
        run = launcher.train(Line, nproc=nproc, settings={{"train.max_steps": 2}}, console=False)
        print(run.status, len(run.metrics("train")), *run.evaluate("val")["metrics"])
    except launcher.SettingsError as error:
        print(error)
"""
GUARDED = SCRIPT + '\nif __name__ == "__main__":\n    main(2)\n'


def typed(folder, *args, text=None):
    command, options = [sys.executable, *args], {"capture_output": True, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment(), input=text, check=True, **options)
    return done.stdout


@pytest.mark.slow
def test_a_class_of_a_script_is_found_later_and_needs_a_guard(tmp_path):
    (tmp_path / "script.py").write_text(GUARDED)
    assert typed(tmp_path, "script.py") == "completed 2 val_loss\n"
    [folder] = (tmp_path / "runs").iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = f"import launcher; print(type(launcher.open_run({str(folder)!r}).model()).__name__)"
    assert typed(elsewhere, "-c", code) == "Sequential\n"
    (tmp_path / "script.py").write_text(SCRIPT + "\nmain(2)\n")
    said = typed(tmp_path, "script.py")
    assert "'script' trains while a process imports it" in said
    assert 'fix           put what trains below  if __name__ == "__main__":' in said


SEEN = """\
    def setup(self):
        super().setup()
        self.seen = len(self.data("train"))

"""
"""The network is only built after the data was read."""


def test_the_result_gives_metrics_and_the_trained_model(here, tmp_path, capsys):
    settings = {**TINY, "train.ema": 0.5, "save.every": 1, "save.keep_last": 3}
    run = launcher.train(
        "language:tiny", "lite", "local", settings=settings, out=tmp_path / "a", console=False
    )
    assert capsys.readouterr().out == ""
    assert (run.status, run.steps, run.best["metric"]) == ("completed", 3, "val_loss")
    assert [line["step"] for line in run.metrics("train")] == [1, 2, 3]
    assert run.metrics("eval")[-1]["metrics"]["val_loss"] == run.best["value"]
    with pytest.raises(launcher.SettingsError, match=r"allowed .* rank 0"):
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


@pytest.mark.parametrize("resumed", [False, True])
def test_a_disk_without_room_for_a_checkpoint_is_found_before_training(run, monkeypatch, resumed):
    here = run.folder.parent
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    longer = {"settings": {"train.max_steps": 6}, "resume": "run", "reset": ["schedule"]}
    start = longer if resumed else {"model": "language:tiny", "settings": TINY, "out": "other"}
    with pytest.raises(launcher.SettingsError, match="no room for a checkpoint"):
        launcher.train(**start, console=False)
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*") if path.is_file()}
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    assert changed in ([], [run.folder / ".lock"])


def test_the_model_of_a_custom_task_is_built_with_its_data(here, tmp_path):
    body = BODY.replace("nn.Linear(2, 4)", "nn.Linear(2, self.seen // 2)")
    task = f"{write(here, HEAD + LINE + SEEN + body)}:Line"
    run = launcher.train(task, settings={"train.max_steps": 2}, out=tmp_path / "a", console=False)
    found = open_checkpoint(run.folder / "last")
    assert torch.equal(run.model()[0].weight, found.tensor("weight", "0.weight"))
    nothing = {"train.max_steps": 2, "save.last": False, "save.keep_best": 0}
    run = launcher.train(task, settings=nothing, out=tmp_path / "b", console=False)
    with pytest.raises(launcher.SettingsError, match="has no checkpoint"):
        run.model()


LOOP = """
import launcher

for out in ("first", "second"):
    launcher.train(model="language:tiny", settings={"data.path": "mine.jsonl"}, out=out)
"""


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
