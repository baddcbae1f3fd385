"""Lines to paste of the other commands, and of resumed runs: each does what it says."""

import json
import shutil
from pathlib import Path

import pytest

from tests.edges.pasting import DATA, QUICK, RUN, SLOW, Case, a_run, folder_of, parameters
from tests.edges.test_lines_of_settings import TASK
from tests.runs.conftest import REQUESTS

TRAIN = f"--model language:tiny --data mine.jsonl {QUICK}"


def changed(name, change):
    """A run of which one file or folder is changed."""

    def make(path):
        a_run(path)
        change(path / name)

    return make


def a_custom_run(path):
    """A run of the custom task beside it."""
    from launcher.__main__ import main

    assert main(f"--model exported_task:Mine --out {path} {QUICK}".split()) == 0


def copied_link(path):
    """A folder instead of a link, as a copy by some programs has it."""
    target = path.resolve()
    path.unlink()
    shutil.copytree(target, path)


def url(config):
    """A settings file that downloads the file or folder `src` beside it."""

    def make(path):
        path.write_text(config.replace("URL", (path.absolute().parent / "src").as_uri()))

    return make


OPTIMIZER = TASK + (
    "\n    def optimizer(self, parameters):\n        return torch.optim.SGD(parameters, lr=0.1)\n"
)
ONE_FILE = "download:\n  files:\n    - url: URL\n"
STAGED = "--mode staged --model language:tiny"

CASES = [
    Case("explain optim.lrr"),
    Case("new-task my-task"),
    Case("predict runs/mine", RUN),
    Case("watch", {"other/mine": a_run}, {"RUN": "other/mine"}),
    Case("compare --steps 1 --dry-run"),
    Case("compare --modes fast --steps x --dry-run"),
    Case("--lite zero2 --dry-run"),
    Case("submit --dry-run --exclusive", says="--exclusive"),
    Case(f"{STAGED} --stage dialogues --dry-run", RUN, {"RUN": "runs/mine"}),
    Case("--mode odd.yaml --dry-run", {"odd.yaml": "promise: {global_batch: {at_least: 1, at_most: 1}}\ntrain: {micro_batch: 3}\n"}),
    Case("--model own_optimizer:Mine --engine zero2 --dry-run", {"own_optimizer.py": OPTIMIZER}),
    Case("data check mien.jsonl", DATA),
    Case("data check embedded:comands"),
    Case("data fetch --config mine.yaml", {"src.zip": "no archive", "mine.yaml": url(ONE_FILE.replace("URL", "URL.zip"))}),
    Case("data fetch --config mine.yaml", {"src": "text", "data/src": "mine", "mine.yaml": url("download:\n  folder: data\n  files: [URL]\n")}, {"DIR": "other"}),
    Case("data fetch --config mine.yaml", {"src": "text", "mine.yaml": url(f"{ONE_FILE}      size: 9\n")}),
    Case(f"--model language:tiny --config mine.yaml --download-data {QUICK}", {"src": folder_of(a_jsonl=REQUESTS), "mine.yaml": url(ONE_FILE)}, {"PATH": "src"}),
    Case("export runs/mine --format safetensor", RUN),
    Case("export runs/mine --format hf", {"exported_task.py": TASK, "runs/mine": a_custom_run}, {"RUN": "runs/mine"}),
    Case("plan --model language:tiny --ram 8"),
    Case("plan --model language:tiny --gpu h1000", marks=SLOW),
    Case("plan --model language:tiny --gpu A100", given={"SIZE": "80GiB"}, marks=SLOW),
    Case("plan --model language:tiny --engine local --nodes 2", marks=SLOW),
    Case("predict runs/mine --input 'my ntoes.txt'", RUN | {"my notes.txt": "hello"}, marks=SLOW),
    Case("resume runs/mine --max-steps 4", RUN),
    Case("resume runs/mine --reset schedul --max-steps 4", RUN),
    Case("resume runs/mine --max-steps 4 --reset schedule --dry-run", {"runs/mine": changed("checkpoints", shutil.rmtree)}),
    Case("resume runs/mien", RUN),
    Case("resume 7 --dry-run", RUN),
    Case("resume runs/mine/checkpoints/step-00000007", RUN),
    Case("report runs/mine", {"runs/mine": changed("result.json", lambda path: path.write_text("{"))}),
    Case("report runs/mine", {"runs/mine": changed("metrics.jsonl", lambda path: path.write_text("{\n" + path.read_text()))}),
    Case(f"{TRAIN} --out runs/mine", DATA | RUN),
    Case("resume runs/mine --max-steps 4 --reset schedule", {"runs/mine": changed("best", copied_link)}, {"ELSEWHERE": "elsewhere"}),
    Case("submit --dry-run -- --time=1:00:00"),
    Case("submit --model language:tiny", variables={"PATH": "/nowhere"}),
    Case("resume runs/mine --data other.jsonl --max-steps 4 --reset schedule", RUN | {"other.jsonl": REQUESTS.replace("what", "who")}),
]  # fmt: skip


@pytest.mark.parametrize("case", parameters(CASES))
def test_a_pasted_line_does_what_it_says(case, pasted):
    assert pasted(case)


def test_what_a_python_call_prints_is_python(tmp_path, monkeypatch):
    import launcher
    from launcher.base.diagnostics import SettingsError

    monkeypatch.chdir(tmp_path)
    a_run(Path("run"))
    for name in ("ru", "run/best"):
        with pytest.raises(SettingsError) as error:
            launcher.open_run(name)
        fix = error.value.diagnostics[0].fix
        assert fix is not None and fix.startswith("launcher.open_run(")
        assert eval(fix, {"launcher": launcher})


def test_the_example_of_a_download_is_a_settings_file(tmp_path, monkeypatch, capfd):
    from launcher.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main(["--download-data", "--json", "--dry-run"]) == 2
    [error] = json.loads(capfd.readouterr().out)["diagnostics"]
    Path("mine.yaml").write_text(error["fix"].split("  ")[1])
    assert main(["--config", "mine.yaml", "--download-data", "--dry-run"]) == 0
